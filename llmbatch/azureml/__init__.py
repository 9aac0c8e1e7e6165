"""Scoring scripts of Azure ML, run here: files in mini-batches through their ``init()`` and ``run(mini_batch)``."""
