"""For models that are served with Verta's wire: ``llmbatch.verta.DeployedModel(prediction_url, token)``."""

from llmbatch.integrations.verta import DeployedModel

__all__ = ["DeployedModel"]
