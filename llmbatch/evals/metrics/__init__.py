"""Metrics: one scored row in, what it adds to the figure out. A new metric is a file here and a line in this table."""

METRICS = {
    "exact_match": "llmbatch.evals.metrics.exact_match:KIND",
}
