"""A request's settings in; vLLM's ``SamplingParams`` out, made and checked once for each distinct setting and then shared.

vLLM checks and deep-copies the parameters of every request; for a JSON schema that alone costs half a millisecond a row. Here
the check is done once, and the copy that vLLM makes of each request's is shallow: it sets plain fields on the copy and adds
the same stop tokens to a shared set, nothing else (read in 0.32).
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping
from typing import Any, NamedTuple

from llmbatch.core.sampling import LOOPS, Loops
from llmbatch.core.types import Constraint, Request, Sampling
from llmbatch.engines.vllm import trouble
from llmbatch.engines.vllm.structured import structured_outputs

_KEPT = 4096  # distinct settings; a job that has more makes them anew

# ours to decide, or made by vLLM itself
_NOT_SETTABLE = frozenset(
    {"detokenize", "output_kind", "output_text_buffer_length", "skip_clone", "skip_reading_prefix_cache", "stream_interval",
     "repetition_detection", "structured_outputs"}
)  # fmt: skip


class Setting(NamedTuple):
    """Parameters that requests share, and how their answers' text is made."""

    params: Any  # vllm.SamplingParams
    detokenize: bool  # whether we make the text; else vLLM does
    skip_special_tokens: bool
    include_stop: bool


class Samplings:
    """The settings of one engine. ``defaults`` are the model's own (its generation config), by vLLM's names.

    ``marks_calls``: the model writes calls of tools with special tokens, which a request that offers tools needs in its text.
    """

    def __init__(
        self, llm: Any, defaults: Mapping[str, Any], *, can_detokenize: bool, marks_calls: bool = False
    ) -> None:
        engine = llm.llm_engine
        self._checks = (
            engine.model_config,
            engine.vllm_config.speculative_config,
            engine.vllm_config.structured_outputs_config,
        )
        self._tokenizer = engine.get_tokenizer()
        self._backend = str(engine.vllm_config.structured_outputs_config.backend)
        # a request without max_tokens asks for none, and is planned so; vLLM would stop after 16
        self._defaults = {**defaults, "max_tokens": None}
        self._can_detokenize = can_detokenize
        self._marks_calls = marks_calls
        self._made: dict[tuple[int, Constraint | None, bool], tuple[Sampling, Setting]] = {}
        self._of_scores: dict[tuple[bool, bool], Any] = {}

    def of(self, request: Request) -> tuple[Setting, Any]:
        """The shared setting of a request and its own parameters. Raises ``ValueError`` for what vLLM would refuse."""
        tools = request.prompt.tools
        marks = self._marks_calls and tools is not None and tools.choice == "auto"
        key = (id(request.sampling), request.constraint, marks)
        made = self._made.get(key)
        if made is None:
            if len(self._made) >= _KEPT:
                self._made.clear()
            # the sampling is kept with it, so that its identity is not another's later
            sampling = request.sampling.replace(skip_special_tokens=False) if marks else request.sampling
            made = self._made[key] = (request.sampling, self._make(sampling, request.constraint))
        setting = made[1]
        if request.seed is None and request.max_tokens is None and not request.stream:
            return setting, setting.params
        params = copy.copy(setting.params)
        params.__dict__.clear()  # vLLM caches there what it derived, such as the kind of sampling, which a seed changes
        if request.stream:  # vLLM makes the text as it comes, and gives all of it so far at every step
            from vllm.sampling_params import RequestOutputKind

            params.output_kind, params.detokenize = RequestOutputKind.CUMULATIVE, True
            setting = setting._replace(detokenize=False)
        if request.seed is not None:
            params.seed = request.seed
        if request.max_tokens is not None:
            params.max_tokens = request.max_tokens
            params._verify_args()
        return setting, params

    def of_scores(self, *, scored: bool, following: int | None) -> Any:
        """Parameters that bring log-probabilities: of the prompt's own tokens, and of the id ``following`` as the next one."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        key = (scored, following is not None)
        if key not in self._of_scores:
            asked: dict[str, Any] = {"prompt_logprobs": 0, "skip_reading_prefix_cache": False} if scored else {}
            if following is not None:
                asked["logprob_token_ids"] = [following]
            params = _checked_class()(
                temperature=0.0, max_tokens=1, output_kind=RequestOutputKind.FINAL_ONLY, detokenize=False,
                skip_clone=True, flat_logprobs=True, **asked,
            )  # fmt: skip
            SamplingParams.verify(params, *self._checks, self._tokenizer)
            self._of_scores[key] = params
        params = copy.copy(self._of_scores[key])
        if following is not None:
            params.logprob_token_ids = [following]
        return params

    def _make(self, sampling: Sampling, constraint: Constraint | None) -> Setting:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        values = {**self._defaults, **dict(sampling.values)}
        special = bool(values.get("skip_special_tokens", True))
        detokenize = (
            self._can_detokenize
            and not values.get("stop")
            and values.get("logprobs") is None
            and values.get("prompt_logprobs") is None
            and not values.get("logprob_token_ids")
            and (special or values.get("spaces_between_special_tokens", True))
        )
        params = params_of(
            values,
            output_kind=RequestOutputKind.FINAL_ONLY,
            detokenize=not detokenize,
            structured_outputs=None if constraint is None else structured_outputs(constraint, self._backend),
            skip_clone=True,
        )
        SamplingParams.verify(params, *self._checks, self._tokenizer)
        return Setting(params, detokenize, special, bool(values.get("include_stop_str_in_output")))


def params_of(values: Mapping[str, Any], **ours: Any) -> Any:
    """vLLM's parameters for a job's sampling settings and our own; raises one of ``trouble.refusals`` for a wrong name or value."""
    return _checked_class()(**_plain_values(dict(values)), **ours)


def xgrammar_takes(constraint: Constraint) -> bool:
    """Whether the xgrammar backend can hold an answer to this constraint; guidance takes more JSON schemas."""
    from vllm import SamplingParams
    from vllm.v1.structured_output.backend_xgrammar import validate_xgrammar_grammar

    try:
        validate_xgrammar_grammar(SamplingParams(structured_outputs=structured_outputs(constraint, "")))
    except trouble.refusals():
        return False
    return True


def _plain_values(values: dict[str, Any]) -> dict[str, Any]:
    """The values as vLLM wants them. ``n`` goes: several answers are several requests. Raises ``ValueError`` for a wrong name."""
    from vllm.sampling_params import SamplingParams

    values.pop("n", None)
    loops: Loops | None = values.pop(LOOPS, None)
    known = [
        name for name in SamplingParams.__struct_fields__ if not name.startswith("_") and name not in _NOT_SETTABLE
    ]
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"vLLM has no sampling setting {name!r}: {hint}It knows: {', '.join(sorted(known))}")
        if isinstance(value, tuple):
            values[name] = list(value)
    if (bias := values.get("logit_bias")) is not None:
        values["logit_bias"] = {int(token): float(value) for token, value in dict(bias).items()}
    if (
        loops is not None and "repetition_detection" in SamplingParams.__struct_fields__
    ):  # versions without it leave all of it to the check
        from vllm.sampling_params import RepetitionDetectionParams

        values["repetition_detection"] = RepetitionDetectionParams(
            min_count=loops.times, min_pattern_size=loops.shortest, max_pattern_size=loops.longest
        )
    return values


_class: Any = None


def _checked_class() -> Any:
    """``SamplingParams`` whose check is done already. Made once: vLLM is imported only here."""
    global _class
    if _class is None:
        from vllm import SamplingParams

        class CheckedParams(SamplingParams):  # type: ignore[misc]
            def verify(self, *args: Any, **kwargs: Any) -> None:
                """Nothing: it was checked when it was made, and every request that shares it is the same in this."""

        _class = CheckedParams
    return _class
