"""For polars: ``import llmbatch.polars``, and then ``df.llmbatch.run(model=..., prompt=...)``."""

from llmbatch.integrations.frames_polars import LlmbatchNamespace

__all__ = ["LlmbatchNamespace"]
