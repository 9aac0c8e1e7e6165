"""Images of prompts: where they are named, what is in them, and their pixels, read by workers ahead of an engine."""
