"""Families of models on Bedrock, each with a body of its own. One more is a file here and a line in this table."""

FAMILIES = {
    "anthropic": "llmbatch.formats.bedrock.anthropic:ANTHROPIC",
    "titan": "llmbatch.formats.bedrock.titan:TITAN",
    "converse": "llmbatch.formats.bedrock.converse:CONVERSE",
    "openai": "llmbatch.formats.bedrock.chat:CHAT",
    "mistral": "llmbatch.formats.bedrock.mistral:MISTRAL",
    "meta": "llmbatch.formats.bedrock.meta:META",
    "deepseek": "llmbatch.formats.bedrock.deepseek:DEEPSEEK",
    "cohere": "llmbatch.formats.bedrock.cohere:COHERE",
    "ai21": "llmbatch.formats.bedrock.ai21:AI21",
}
"""In the order in which a body is taken for one of them, where its keys leave that open and the model does not tell."""

PROVIDERS = {
    "anthropic": ("anthropic",),
    "amazon": ("titan", "converse"),
    "meta": ("meta",),
    "mistral": ("mistral", "openai"),
    "openai": ("openai",),
    "qwen": ("openai",),
    "deepseek": ("deepseek", "openai"),
    "writer": ("deepseek", "openai"),
    "cohere": ("cohere",),
    "ai21": ("ai21", "openai"),
}
"""What the first part of a ``modelId`` says: which bodies its models take."""
