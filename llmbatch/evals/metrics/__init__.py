"""Metrics: one scored row in, what it adds to the figure out. A new metric is a file here and a line in this table."""

METRICS = {
    "exact_match": "llmbatch.evals.metrics.exact_match:KIND",
    "accuracy": "llmbatch.evals.metrics.accuracy:KIND",
    "macro_f1": "llmbatch.evals.metrics.macro_f1:KIND",
    "contains": "llmbatch.evals.metrics.contains:KIND",
    "number": "llmbatch.evals.metrics.number:KIND",
    "json_fields": "llmbatch.evals.metrics.json_fields:KIND",
    "bleu": "llmbatch.evals.metrics.bleu:KIND",
    "chrf": "llmbatch.evals.metrics.chrf:KIND",
    "ter": "llmbatch.evals.metrics.ter:KIND",
    "rouge": "llmbatch.evals.metrics.rouge:KIND",
    "pass_at_k": "llmbatch.evals.metrics.pass_at_k:KIND",
    "choice_accuracy": "llmbatch.evals.metrics.choice_accuracy:KIND",
    "perplexity": "llmbatch.evals.metrics.perplexity:KIND",
    "calibration_error": "llmbatch.evals.metrics.calibration_error:KIND",
    "brier": "llmbatch.evals.metrics.brier:KIND",
    "judge_score": "llmbatch.evals.metrics.judge_score:KIND",
    "judge_agreement": "llmbatch.evals.metrics.judge_agreement:KIND",
    "share": "llmbatch.evals.metrics.share:KIND",
}
