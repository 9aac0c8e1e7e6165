"""For pandas: ``import llmbatch.pandas``, and then ``df.llmbatch.run(model=..., prompt=...)``."""

from llmbatch.integrations.frames_pandas import LlmbatchAccessor

__all__ = ["LlmbatchAccessor"]
