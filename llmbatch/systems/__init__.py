"""Other systems' job documents: what they ask for in, a job of ours out. One more is a file here and a line in this table."""

SYSTEMS: dict[str, str] = {
    "sagemaker": "llmbatch.systems.sagemaker:SageMakerTransform",
    "bedrock": "llmbatch.systems.bedrock:BedrockInvocation",
    "vertex": "llmbatch.systems.vertex:Vertex",
    "azure_ml": "llmbatch.systems.azure_ml.system:AzureML",
}
