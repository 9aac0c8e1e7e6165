"""Tools that people use already, with llmbatch's engine, resume and accounting beneath them; a file for each.

A tracker shows runs as they go on: a new one is a file here and a line in this table, as ``base.Tracker`` says.
"""

TRACKERS = {
    "mlflow": "llmbatch.integrations.mlflow_tracking:track_mlflow",
}
