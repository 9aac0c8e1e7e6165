"""Layouts: a finished run in, the files that another system leaves of such a job out. One more is a file here and a line."""

LAYOUTS: dict[str, str] = {
    "vertex": "llmbatch.sinks.layouts.vertex:VertexLayout",
    "gemini": "llmbatch.sinks.layouts.gemini:GeminiLayout",
    "gemini_api": "llmbatch.sinks.layouts.gemini:GeminiApiLayout",
}
