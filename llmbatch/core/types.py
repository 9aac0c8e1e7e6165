"""The values that flow between the stages: frozen, slotted, and nothing in them but data and arithmetic.

Identity is a row's index, never its text and never its position in a list. Token counts are counts of tokens, times are
seconds. Nothing here imports another module of llmbatch, but for ``fast_dataclass``, and for a notebook that shows a record.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, fields
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from llmbatch.core.fast_dataclass import fast_dataclass

RowId = str | int
Message = Mapping[str, Any]
FinishReason = Literal["stop", "length", "repetition", "error", "abort"]
EMPTY: Mapping[str, Any] = MappingProxyType({})


class Status(StrEnum):
    """What became of a row; every input row ends in exactly one."""

    OK = "ok"  # an answer came and every check passed
    INVALID = "invalid"  # an answer came, and the check sent it back at every attempt
    TRUNCATED = "truncated"  # the answer was cut off at every attempt
    FAILED = "failed"  # there is no answer: the row, its prompt or the engine failed
    SKIPPED = "skipped"  # not sent, because the job's own policy says so


class FailureKind(StrEnum):
    """Why a row, a request or an answer failed. Whether trying again can help belongs to the kind."""

    # the row, before any request
    MALFORMED_ROW = "malformed_row"  # not JSON, not an object, not UTF-8
    PROMPT = "prompt"  # a variable is missing or has the wrong type, the template failed
    EMPTY_PROMPT = "empty_prompt"
    IMAGE = "image"  # an image of the prompt is missing or broken
    TOO_LONG = "too_long"  # the prompt leaves no room in the context
    # the answer
    TRUNCATED = "truncated"
    INVALID_JSON = "invalid_json"
    SCHEMA = "schema"
    CHOICE = "choice"
    REGEX = "regex"
    GRAMMAR = "grammar"
    EMPTY = "empty"
    REJECTED = "rejected"  # by a pattern or predicate of the job's
    LANGUAGE = "language"  # in another language than asked for
    COPY = "copy"  # it copies a text of its row
    LENGTH_RATIO = "length_ratio"  # much shorter or longer than a text of its row
    MARKUP = "markup"  # it does not keep that of a text of its row
    GLOSSARY = "glossary"  # terms are not translated as given
    REPETITION = "repetition"  # it runs in circles
    # the engine
    REFUSED = "refused"  # the engine would not take the request
    ENGINE = "engine"  # the engine failed this request and lives
    ENGINE_DIED = "engine_died"  # the engine died, several times, with this request in flight
    NOT_FINITE = "not_finite"  # numbers were asked for, and some of those that came are NaN or infinite

    @property
    def status(self) -> Status:
        """The status of a row whose last failure is of this kind."""
        return _STATUS_OF_KIND.get(self, Status.FAILED)

    @property
    def retryable(self) -> bool:
        """Whether a *different* request for the same row can succeed."""
        return self in _RETRYABLE


_ANSWER_CHECKS = frozenset(
    {
        FailureKind.INVALID_JSON,
        FailureKind.SCHEMA,
        FailureKind.CHOICE,
        FailureKind.REGEX,
        FailureKind.GRAMMAR,
        FailureKind.EMPTY,
        FailureKind.REJECTED,
        FailureKind.LANGUAGE,
        FailureKind.COPY,
        FailureKind.LENGTH_RATIO,
        FailureKind.MARKUP,
        FailureKind.GLOSSARY,
        FailureKind.REPETITION,
    }
)
_STATUS_OF_KIND = dict.fromkeys(_ANSWER_CHECKS, Status.INVALID) | {FailureKind.TRUNCATED: Status.TRUNCATED}
_RETRYABLE = _ANSWER_CHECKS | {FailureKind.TRUNCATED, FailureKind.ENGINE}


@fast_dataclass(frozen=True, slots=True)
class Failure:
    """One thing that went wrong, in words for a person: what was seen, where, and what to try."""

    kind: FailureKind
    message: str


class Cursor(NamedTuple):
    """The place in the input where a row starts, and from which a source can go on reading. Stored as a JSON list."""

    index: int  # type: ignore[assignment]  # the row's index, counted from 0 over the whole input
    file: int = 0  # which of the source's files, in the source's order
    offset: int = 0  # byte offset in the (decompressed) file; for tables and datasets the row's number in it
    line: int = 0  # how many lines of that file lie before


@fast_dataclass(frozen=True, slots=True)
class Row:
    """One row of the input. A row that could not be read has a ``failure`` and no ``data``: it still gets its record."""

    index: int
    id: RowId
    data: Mapping[str, Any]
    cursor: Cursor
    failure: Failure | None = None


class Image(NamedTuple):
    """An image of a prompt: where it is, and which it is. Nothing of it is held here, unless its URL is a data URI.

    ``sha256`` is of its bytes, empty until it was looked at; ``place`` says for a message which row named it.
    """

    url: str  # a path, a URL or a data URI, as the parts of messages have it
    sha256: str = ""
    place: str = ""


@fast_dataclass(frozen=True, slots=True)
class Tools:
    """Functions that the model is offered, as OpenAI's protocol has them, and what it is to do with them: call which it likes, if
    any (``auto``), none, one at least (``required``), or the one that is ``named``. Not ``parallel``: one call at most.
    """

    offered: tuple[Mapping[str, Any], ...]
    choice: Literal["auto", "none", "required", "named"] = "auto"
    name: str = ""
    parallel: bool = True

    @property
    def forced(self) -> bool:
        """Whether the answer is to be a call, and nothing else."""
        return self.choice in ("required", "named")


@fast_dataclass(frozen=True, slots=True)
class Prompt:
    """What the model is to answer: ``messages`` for a chat model, ``text`` for plain completion, or the token ``ids`` of a
    text, which the model is given as they are; exactly one is set.

    ``prefill`` is a start of the answer that the model goes on from; it is part of the answer that is checked. A ``long`` one may
    be longer than any context: its tokens are asked for, and it is not sent as a whole. ``pair`` is the second of two texts
    that are judged together, of which ``text`` is the first: see ``Pooling``. ``images`` are those that parts of the messages
    name, in their order. ``tools`` are shown to the model with the messages.
    """

    messages: tuple[Message, ...] | None = None
    text: str | None = None
    prefill: str = ""
    long: bool = False
    pair: str | None = None
    images: tuple[Image, ...] = ()
    ids: tuple[int, ...] | None = None
    tools: Tools | None = None


class PairIds(list[int]):
    """The token ids of two texts that are judged together: those from ``second`` on are the second one's, as the model is told.

    Of a model that is not told which is which, ``second`` is where all of them end.
    """

    def __init__(self, ids: Iterable[int], second: int) -> None:
        super().__init__(ids)
        self.second = second


@fast_dataclass(frozen=True, slots=True)
class Rendered:
    """One row's prompt, and what the row itself asks for; what holds for all rows is on the prompt, not here.

    ``sampling`` is by the names of vLLM's ``SamplingParams``. ``output`` is one of ``{"schema": ...}``,
    ``{"choice": [...]}``, ``{"regex": ...}`` and ``{"grammar": ...}``. ``vector``: that of the prompt is asked for, and no answer,
    with so many ``dimensions`` where the row says so. ``more`` are further prompts of the same row, which are asked alike: its
    output is a list, the answers to the first prompt before those to the second.
    """

    prompt: Prompt
    sampling: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    output: Mapping[str, Any] | None = None
    lora: str | None = None
    vector: bool = False
    dimensions: int | None = None
    more: tuple[Prompt, ...] = ()


@fast_dataclass(frozen=True, slots=True)
class Constraint:
    """What constrained decoding holds the answer to. ``spec`` is text: the schema as JSON, choices as a JSON list, ..."""

    kind: Literal["json", "choice", "regex", "grammar"]
    spec: str


PoolingTask = Literal["embed", "classify", "pairs"]


@fast_dataclass(frozen=True, slots=True)
class Pooling:
    """That numbers are asked for in place of an answer: the vector of a text, the probabilities of its classes, or how well the two
    texts of a pair go together. One object for each distinct setting of a job.

    ``dimensions`` is how many numbers a vector is to have, of a model that can give fewer than all. ``activation`` is what the
    model does to its numbers at the end: it makes vectors as long as 1, and of others probabilities. None: as the model has it.
    """

    task: PoolingTask
    dimensions: int | None = None
    activation: bool | None = None


class RequestKey(NamedTuple):
    """Which request: unique in a run. ``step`` counts a row program's requests from 0, ``attempt`` from 1.

    ``sample`` counts the answers to one ask, from 0: of one with several prompts those to the first prompt come first.
    ``share`` is 0 but in an engine that several runs share, where it says whose request it is.
    """

    index: int  # type: ignore[assignment]
    step: int = 0
    sample: int = 0
    attempt: int = 1
    share: int = 0


@fast_dataclass(frozen=True, slots=True)
class Request:
    """One request to the engine.

    ``sampling`` is shared between requests: equal settings are one object, so an engine may cache by identity.
    ``seed`` and ``max_tokens`` differ by request and override those of ``sampling``.
    ``partial`` is the ids of an answer that was cut off: the engine goes on after them, and the completion holds the
    whole answer. ``token_ids`` are the ids of prompt and prefill, without the partial answer, once it is tokenized.
    ``target`` is a continuation whose likelihood is asked for in place of an answer. ``target_ids`` are the ids of prompt and
    target together without the prompt's, as lm-eval has them. With ``pooling`` numbers are asked for in place of an answer; then
    ``target_ids`` are the ids of a pair's second text, which follow those of the first.
    Somebody waits for an ``urgent`` one: it goes ahead of all others. Of one that is to ``stream``, an engine that can tells
    ``Piece``s before its outcome.
    """

    key: RequestKey
    prompt: Prompt
    sampling: Sampling
    constraint: Constraint | None = None
    seed: int | None = None
    max_tokens: int | None = None
    lora: str | None = None
    partial: tuple[int, ...] = ()
    token_ids: Sequence[int] | None = None
    target: str | None = None
    target_ids: Sequence[int] = ()
    pooling: Pooling | None = None
    urgent: bool = False
    stream: bool = False


@fast_dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling settings by the names of vLLM's ``SamplingParams``; one object for each distinct setting of a job.

    Only what was asked for is in ``values`` (sorted pairs, lists as tuples): the rest is the engine's and the model's own
    default; without ``max_tokens`` an answer may fill the context.
    """

    values: tuple[tuple[str, Any], ...] = ()
    _by_name: dict[str, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._by_name = dict(self.values)  # type: ignore[misc]  # frozen for all others

    def get(self, name: str, default: Any = None) -> Any:
        """The value of one setting, or ``default`` where the job leaves it to the engine."""
        return self._by_name.get(name, default)

    def replace(self, **changes: Any) -> Sampling:
        """A copy with some settings changed; ``None`` removes one."""
        merged = {**self._by_name, **changes}
        return Sampling(tuple(sorted((k, v) for k, v in merged.items() if v is not None)))


@fast_dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that requests took. ``cached_tokens`` is the part of ``prompt_tokens`` that the prefix cache spared."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
        )

    def __sub__(self, part: Usage) -> Usage:
        return Usage(
            self.prompt_tokens - part.prompt_tokens,
            self.completion_tokens - part.completion_tokens,
            self.cached_tokens - part.cached_tokens,
        )

    def as_dict(self) -> dict[str, int]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def for_details(self) -> dict[str, int]:
        """For the details of a record: without what the prefix cache spared, which is not the same every time."""
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}


class Score(NamedTuple):
    """The likelihood of a given continuation: the natural logarithm of its probability, summed over its tokens."""

    logprob: float
    greedy: bool  # whether each of its tokens is the most likely one at its place
    tokens: int


@fast_dataclass(frozen=True, slots=True)
class Completion:
    """One answer of the engine to one request, exactly as it came.

    ``text`` and ``token_ids`` are the whole answer, an earlier partial answer included, without prompt and prefill;
    ``text`` is without the reasoning part where a reasoning parser is set. ``usage`` is of this request alone.
    ``logprobs`` is JSON: one object a token, ``{"token", "logprob", "top": [{"token", "logprob"}, ...]}``; the engine gives those
    of the tokens that are new, and the row's work puts them behind those of the partial answer.
    ``tool_calls`` are those of the prompt's tools, in the form of ``core/tools.py``; then ``text`` is what is beside them.
    ``reused_from`` is set where it was not computed for this request, but for an equal one: of a row of this run, or of an
    earlier run whose answers are in the cache. Then ``usage`` is what it took there.
    """

    key: RequestKey
    text: str
    finish_reason: FinishReason
    usage: Usage
    token_ids: Sequence[int] = ()
    reasoning: str | None = None
    stop_reason: str | int | None = None
    logprobs: list[dict[str, Any]] | None = None
    reused_from: Literal["row", "cache"] | None = None
    score: Score | None = None  # of the request's target; then there is no answer, and ``text`` is empty
    # of a request with ``pooling``, of 32 bits each; then ``text`` is empty, or for classes their names as a JSON list
    numbers: array[float] | None = None
    tool_calls: list[dict[str, Any]] | None = None


@fast_dataclass(frozen=True, slots=True)
class Refusal:
    """An engine's word that one request got no answer; the engine lives."""

    key: RequestKey
    failure: Failure


Outcome = Completion | Refusal


class Piece(NamedTuple):
    """A part of an answer that is not finished: the text that came since the piece before, and where in the answer it begins.

    ``logprobs`` are those of its tokens as a ``Completion`` has them, where they are asked for. After a death of the engine the
    answer is made again, and its pieces begin anew with ``start`` 0.
    """

    key: RequestKey
    start: int  # in characters
    text: str
    logprobs: list[dict[str, Any]] | None = None


@fast_dataclass(frozen=True, slots=True)
class Accepted:
    """A completion whose answer passed: what a row program is sent. ``value`` is text, or JSON for a schema."""

    value: Any
    completion: Completion


@fast_dataclass(frozen=True, slots=True)
class Attempt:
    """An answer that was sent back, kept so that nothing is hidden: what came, and why it did not do."""

    key: RequestKey
    failure: Failure
    usage: Usage
    text: str | None = None
    finish_reason: FinishReason | None = None


@fast_dataclass(frozen=True, slots=True)
class Reused:
    """The part of a record's usage that was not computed for it: that of answers to equal requests."""

    usage: Usage
    cached: bool = False  # some of them came from the cache of earlier runs


@fast_dataclass(frozen=True, slots=True)
class Record:
    """The one terminal record of a row. Its JSON form, a line of ``results.jsonl``, is documented in ``record.py``."""

    index: int
    id: RowId
    status: Status
    output: Any = None  # JSON, or an array of 32-bit numbers
    finish_reason: FinishReason | None = None
    attempts: int = 0
    usage: Usage = Usage()
    wasted: Usage = Usage()  # the part of ``usage`` that went into attempts that were sent back
    failure: Failure | None = None
    raw: str | None = None  # the last answer's text, where it is not the output
    reasoning: str | list[str | None] | None = None  # of several samples a list, as of ``logprobs``
    logprobs: list[Any] | None = None
    history: tuple[Attempt, ...] = ()
    input: Mapping[str, Any] | None = None  # the input fields that ``--keep`` joins in
    details: Mapping[str, Any] | None = None  # JSON: what the row's program has to say of how it came to the output
    stop_reason: str | list[str | None] | None = None  # the stop sequence that ended the answer; as of ``reasoning``
    tool_calls: list[Any] | None = (
        None  # then ``output`` is the text beside them, None without; of several samples a list
    )

    def _repr_html_(self) -> str:
        """What a notebook shows of it."""
        from llmbatch.core.notebook import record_html

        return record_html(self)
