"""OpenAI's batch format, both ways, in Azure's spelling too: one file an endpoint, the lines around them, their validation."""
