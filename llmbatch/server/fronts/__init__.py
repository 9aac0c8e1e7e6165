"""Fronts: somebody's HTTP API on our store of files and batches. A new one is a file here and a line in this table."""

FRONTS = {
    "openai": "llmbatch.server.fronts.openai:OpenAIFront",
    "azure": "llmbatch.server.fronts.azure:AzureFront",
    "google": "llmbatch.server.fronts.google:GoogleFront",
    "sagemaker": "llmbatch.server.fronts.sagemaker:SageMakerFront",
    "bedrock": "llmbatch.server.fronts.bedrock:BedrockFront",
    "v2": "llmbatch.server.fronts.v2:V2Front",
    "seldon": "llmbatch.server.fronts.seldon:SeldonFront",
    "verta": "llmbatch.server.fronts.verta:VertaFront",
}
