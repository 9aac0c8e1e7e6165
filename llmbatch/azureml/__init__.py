"""Scoring scripts of Azure ML, run here: files in mini-batches through ``init()`` and ``run(mini_batch)`` in processes of their own."""
