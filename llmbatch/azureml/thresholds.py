"""What failed so far in; why that is more than is tolerated, in words, out."""

from __future__ import annotations

from llmbatch.azureml.journal import Counts
from llmbatch.systems.azure_ml.scoring import Thresholds


def exceeded(thresholds: Thresholds, counts: Counts, mini_batches: int) -> str | None:
    """Why more has failed than is tolerated, in words; ``None`` where that is not so."""
    if 0 <= thresholds.items < counts.failed_items:
        return f"{counts.failed_items} items failed, and error_threshold tolerates {thresholds.items}"
    if 0 <= thresholds.mini_batches < counts.short:
        return f"{counts.short} mini-batches failed, and mini_batch_error_threshold tolerates {thresholds.mini_batches}"
    if thresholds.percent < 100 and 100 * counts.short > thresholds.percent * mini_batches:
        return f"{counts.short} of {mini_batches} mini-batches failed, and allowed_failed_percent is {thresholds.percent:g}"
    return None
