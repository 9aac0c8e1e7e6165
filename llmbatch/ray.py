"""For pipelines of Ray Data: ``ds.map_batches(llmbatch.ray.Stage, fn_constructor_kwargs={...})``."""

from llmbatch.integrations.ray_data import COLUMNS, Stage

__all__ = ["COLUMNS", "Stage"]
