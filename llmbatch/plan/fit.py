"""A request's tokens and the context length in -> whether it fits out, before the engine sees it."""

from __future__ import annotations

from llmbatch.core.demand import Demand
from llmbatch.core.types import Failure, FailureKind


def answer_room(demand: Demand, least: int | None) -> int:
    """The tokens of answer that the context must hold besides the prompt: as ``misfit`` has it. None of a given continuation."""
    if demand.most == 0:
        return 0
    shortest = max(1, demand.least if demand.least != demand.most else 1)
    if least is None:
        return shortest
    return max(shortest, least) if demand.most is None else demand.most


def misfit(tokens: int, demand: Demand, context_length: int | None, least: int | None = None) -> Failure | None:
    """Why a prompt of so many tokens cannot be sent; None if it fits, or only the engine knows.

    The context must hold the prompt and the shortest answer asked for, at least one token; where a likelihood is asked for, only
    prompt and continuation. A ``max_tokens`` that reaches beyond the context is no misfit: that answer ends there, with finish
    reason ``length``. With ``least`` it must hold all of ``max_tokens``, or where that is not given at least so many.
    """
    if least is None and (context_length is None or tokens + max(1, demand.least) <= context_length):
        return None  # nearly every prompt
    room = answer_room(demand, least)
    if context_length is None or tokens + room <= context_length:
        return None
    if not room:
        return Failure(
            FailureKind.TOO_LONG,
            f"prompt and continuation have {tokens:,} tokens, and the context holds {context_length:,}: shorten the prompt",
        )
    named = "min_tokens" if least is None else "overflow_min_tokens" if demand.most is None else "max_tokens"
    answer = "1 token" if room == 1 else f"{named} = {room:,} tokens"
    return Failure(
        FailureKind.TOO_LONG,
        f"the prompt has {tokens:,} tokens, and the context of {context_length:,} must hold it and {answer} of answer: "
        f"shorten or split the row's text (or see --overflow), or give the engine a larger max_model_len if the model allows it",
    )


def may_be_cut(tokens: int, demand: Demand, context_length: int | None) -> bool:
    """Whether the context ends before ``max_tokens`` does, so that a long answer would be cut off."""
    return demand.most is not None and context_length is not None and tokens + demand.most > context_length
