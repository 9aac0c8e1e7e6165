"""What tasks add in; the latest of each key out: told twice, as by a task that ran twice, is told once."""

from __future__ import annotations

from typing import Any

from pyspark.accumulators import AccumulatorParam


class Latest(AccumulatorParam):  # type: ignore[misc]
    """Mappings to tuples of counts, of which the larger is the later."""

    def zero(self, value: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - as Spark calls it
        return {}

    def addInPlace(self, value1: dict[str, Any], value2: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - as Spark calls it
        for key, value in value2.items():
            if key not in value1 or value > value1[key]:
                value1[key] = value
        return value1


LATEST = Latest()
