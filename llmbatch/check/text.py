"""Free text: any answer is the value."""

from __future__ import annotations

from llmbatch.check.base import Kind, OutputSettings, Reading


def make(settings: OutputSettings) -> Kind:  # noqa: ARG001 - the contract's
    return Kind(constraint=None, read=Reading)
