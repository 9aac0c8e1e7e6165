"""Free text: any answer is the value."""

from __future__ import annotations

from llmbatch.check.base import Judgement, Kind, OutputSettings


def make(settings: OutputSettings) -> Kind:  # noqa: ARG001 - the contract's
    return Kind(constraint=None, judge=Judgement)
