"""Run an LLM over a whole corpus on hardware that you own: one checked result for every row, nothing lost."""

__version__ = "0.1.0"
