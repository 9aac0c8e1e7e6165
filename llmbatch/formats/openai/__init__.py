"""OpenAI's batch format, both ways, and Azure's spelling of it: one file an endpoint, the lines around them, and their validation."""
