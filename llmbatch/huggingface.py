"""For Hugging Face datasets: ``llmbatch.huggingface.run(dataset, ...)``, and ``dataset.map(llmbatch.huggingface.Map(...))``."""

from llmbatch.integrations.huggingface import Map, run

__all__ = ["Map", "run"]
