"""Wire formats: how requests and their answers are written elsewhere. A new one is a file here and a line in this table."""

FORMATS = {
    "requests": "llmbatch.formats.openai.format:OpenAI",  # what an input in OpenAI's format was called before there were others
    "openai": "llmbatch.formats.openai.format:OpenAI",
    "v2": "llmbatch.formats.v2:V2",
    "seldon": "llmbatch.formats.seldon:Seldon",
    "trtllm_bench": "llmbatch.formats.trtllm_bench:TrtllmBench",
    "sagemaker": "llmbatch.formats.sagemaker:SageMaker",
    "bedrock": "llmbatch.formats.bedrock.format:Bedrock",
    "vertex": "llmbatch.formats.vertex:Vertex",
    "gemini": "llmbatch.formats.gemini.format:Gemini",
    "gemini_api": "llmbatch.formats.gemini.format:GeminiApi",
}
