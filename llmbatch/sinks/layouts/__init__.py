"""Layouts: a finished run in, the files that another system leaves of such a job out. One more is a file here and a line."""

LAYOUTS: dict[str, str] = {
    "sagemaker": "llmbatch.sinks.layouts.sagemaker:SageMakerLayout",
    "bedrock": "llmbatch.sinks.layouts.bedrock:BedrockLayout",
    "openai_batch": "llmbatch.sinks.layouts.openai_batch:OpenAIBatch",
    "v2": "llmbatch.sinks.layouts.v2:V2Lines",
    "seldon": "llmbatch.sinks.layouts.seldon:SeldonLines",
    "vertex": "llmbatch.sinks.layouts.vertex:VertexLayout",
    "gemini": "llmbatch.sinks.layouts.gemini:GeminiLayout",
    "gemini_api": "llmbatch.sinks.layouts.gemini:GeminiApiLayout",
    "azure_ml": "llmbatch.sinks.layouts.azure_ml:AzureML",
}
