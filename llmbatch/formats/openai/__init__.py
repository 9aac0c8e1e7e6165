"""OpenAI's batch format, both ways, and Azure's spelling of it: one file an endpoint, the lines around them, what makes a file bad."""
