"""Wire formats: how requests and their answers are written elsewhere. A new one is a file here and a line in this table."""

FORMATS = {
    "requests": "llmbatch.formats.openai:OpenAI",  # what an input in OpenAI's format was called before there were others
    "openai": "llmbatch.formats.openai:OpenAI",
    "vertex": "llmbatch.formats.vertex:Vertex",
    "gemini": "llmbatch.formats.gemini.format:Gemini",
    "gemini_api": "llmbatch.formats.gemini.format:GeminiApi",
}
