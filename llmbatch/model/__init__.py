"""A model that is not loaded in; the token ids of prompts, and the memory that it takes, out."""
