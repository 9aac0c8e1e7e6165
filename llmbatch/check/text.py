"""Free text: any answer is the value."""

from __future__ import annotations

from llmbatch.check.verdict import Judgement, Kind

KIND = Kind(constraint=None, judge=Judgement)
