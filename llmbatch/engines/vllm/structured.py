"""A constraint in; vLLM's ``StructuredOutputsParams`` out, with JSON spaced as models have learnt to write it."""

from __future__ import annotations

import json
from typing import Any

from llmbatch.core.types import Constraint
from llmbatch.engines.spacing import as_xgrammar, for_guidance


def structured_outputs(constraint: Constraint, backend: str) -> Any:
    """The parameters for one constraint and the grammar backend that the engine has."""
    from vllm.sampling_params import StructuredOutputsParams

    if constraint.kind == "choice":
        return StructuredOutputsParams(choice=json.loads(constraint.spec))
    if constraint.kind == "json" and backend == "xgrammar":
        grammar = as_xgrammar(constraint.spec)  # where it has none, vLLM is to say what it thinks of the schema
        return (
            StructuredOutputsParams(json=constraint.spec)
            if grammar is None
            else StructuredOutputsParams(grammar=grammar)
        )
    if constraint.kind == "json" and backend == "guidance":
        return StructuredOutputsParams(json=for_guidance(constraint.spec))
    return StructuredOutputsParams(**{constraint.kind: constraint.spec})
