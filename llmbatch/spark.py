"""For open-source Spark: ``register(spark, model=...)`` gives SQL ``ai_query`` and its like, ``run`` does a DataFrame."""

from llmbatch.integrations.spark.frames import run
from llmbatch.integrations.spark.session import Registered, enable, register, sql

__all__ = ["Registered", "enable", "register", "run", "sql"]
