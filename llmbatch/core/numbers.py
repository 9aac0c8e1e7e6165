"""Numbers of 32 bits in; the shortest JSON that gives exactly these again out: half as long as the same numbers as 64 bits."""

from __future__ import annotations

import math
from array import array

from llmbatch.core.types import Failure, FailureKind

_FEW = 16  # for fewer it is not worth to call Arrow


def json_text(numbers: array[float]) -> str:
    """A JSON list. Raises ``ValueError`` for what JSON cannot hold. A zero has no sign."""
    text = _joined(numbers) if len(numbers) >= _FEW else ",".join(map(_short, numbers))
    if "n" in text:  # as in nan and inf
        raise ValueError("some of the numbers are NaN or infinite")
    return f"[{text}]"


def _joined(numbers: array[float]) -> str:
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pa.Array.from_buffers(pa.float32(), len(numbers), [None, pa.py_buffer(numbers)]).cast(pa.string())
    joined = pc.binary_join(pa.ListArray.from_arrays(pa.array([0, len(texts)], pa.int32()), texts), ",")
    return str(joined[0].as_py())


def plain(numbers: array[float]) -> list[float]:
    """The numbers as Python's, whose JSON is as short."""
    return [float(_short(number)) for number in numbers]


def not_finite(numbers: array[float]) -> Failure | None:
    """What is wrong with numbers that are not all finite; None where they are."""
    if math.isfinite(sum(numbers)):  # as 64 bits, of which no such sum is too large
        return None
    bad = [place for place, number in enumerate(numbers) if not math.isfinite(number)]
    first = f"the first is {numbers[bad[0]]}, number {bad[0]}"
    said = f"{len(bad):,} of the {len(numbers):,} numbers that the model gave are NaN or infinite, {first}"
    return Failure(FailureKind.NOT_FINITE, f"{said}: another dtype (engine.args.dtype) may help")


def _short(number: float) -> str:
    """The shortest text that is read as the same number of 32 bits."""
    for digits in (6, 7, 8):
        text = f"{number:.{digits}g}"
        if array("f", [float(text)])[0] == number:
            return text
    return f"{number:.9g}"


__all__ = ["json_text", "not_finite", "plain"]
