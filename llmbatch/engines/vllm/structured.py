"""A constraint in; vLLM's ``StructuredOutputsParams`` out, with JSON spaced as models have learnt to write it.

White space between tokens of JSON must be held fixed, or a weak model fills its answer with it. vLLM's own setting for that,
``disable_any_whitespace``, asks for no space at all after ``,`` and ``:`` in newer versions and for one in older ones. Models are
trained on text with one, and forced to write none they go astray: the demo model's share of exact answers falls from 99% to 0%.
So the spacing is written into the grammar here.
"""

from __future__ import annotations

import json
from typing import Any

from llmbatch.core.types import Constraint

_SEPARATORS = (", ", ": ")


def structured_outputs(constraint: Constraint, backend: str) -> Any:
    """The parameters for one constraint and the grammar backend that the engine has."""
    from vllm.sampling_params import StructuredOutputsParams

    if constraint.kind == "choice":
        return StructuredOutputsParams(choice=json.loads(constraint.spec))
    if constraint.kind == "json" and backend == "xgrammar":
        grammar = _as_xgrammar(constraint.spec)
        return (
            StructuredOutputsParams(json=constraint.spec)
            if grammar is None
            else StructuredOutputsParams(grammar=grammar)
        )
    if constraint.kind == "json" and backend == "guidance":
        return StructuredOutputsParams(json=_for_guidance(constraint.spec))
    return StructuredOutputsParams(**{constraint.kind: constraint.spec})


def _as_xgrammar(schema: str) -> str | None:
    """The schema as a grammar of xgrammar's; ``None`` where it has none, and vLLM is to say what it thinks of the schema."""
    import xgrammar

    try:
        grammar = str(xgrammar.Grammar.from_json_schema(schema, any_whitespace=False, separators=_SEPARATORS))
        xgrammar.Grammar.from_ebnf(grammar)
    except (RuntimeError, ValueError):
        return None
    return grammar


def _for_guidance(schema: str) -> str:
    """The schema with guidance's own options for it, unless it has them."""
    parsed = json.loads(schema)
    if not isinstance(parsed, dict) or "x-guidance" in parsed:
        return schema
    item, key = _SEPARATORS
    parsed["x-guidance"] = {"whitespace_flexible": False, "item_separator": item, "key_separator": key}
    return json.dumps(parsed, ensure_ascii=False)
