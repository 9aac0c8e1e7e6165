"""Gemini's batch formats: that of Vertex AI, and that of the Gemini API with its File API."""
