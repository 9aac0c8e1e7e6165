"""For MLflow: a job as a model (``log_model``, ``load_model``), a run that it follows (``track``), tables for its evaluations."""

from llmbatch.integrations.mlflow_models import LlmbatchModel, load_model, log_model, save_model
from llmbatch.integrations.mlflow_models import load_pyfunc as _load_pyfunc  # by this name MLflow looks for it
from llmbatch.integrations.mlflow_tables import evaluation_table, genai_data
from llmbatch.integrations.mlflow_tracking import track_mlflow as track

__all__ = [
    "LlmbatchModel",
    "_load_pyfunc",
    "evaluation_table",
    "genai_data",
    "load_model",
    "log_model",
    "save_model",
    "track",
]
