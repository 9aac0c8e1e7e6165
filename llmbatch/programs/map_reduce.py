"""A document that may be longer than the context: its chunks asked about at once, the answers put together until one is left.

    program:
      name: map_reduce
      prompts: {reduce: "Make one summary of these: {{ joined }}"}
      settings: {overlap: 50}

The job's own prompt is asked about each chunk, in the field of the document. It may take ``part`` (from 1) and ``parts``, where the
row has no fields of these names. A document that fits is asked about as it is, and nothing is put together.

The prompt ``reduce`` is given neighbouring answers as ``partials`` (a list) and as ``joined`` (one text, with blank lines between
them). Which ones is planned before there are any, by the most tokens that an answer may have (``max_tokens``): as many as fit,
in even groups, and then groups of these. So the tree does not depend on which answer came first, and each group is put together as
soon as its own answers are there. Answers that come out longer than planned are put together in smaller groups; where no two of
them fit the row fails.

The record's ``output`` is the last answer, and its ``details``:

    {"chunks": [{"start": 0, "end": 5120, "status": "ok", "output": "...", "usage": {...}}, ...],
     "reductions": [{"level": 1, "chunks": [0, 6], "partials": 7, "status": "ok", "output": "...", "usage": {...}}, ...]}

``start`` and ``end`` count the document's characters. ``chunks`` are the first and the last that are in it, counted from 0. What
is the record's own output is not repeated. ``error`` (kind, message) is there where one is not ok, ``usage`` where it is.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from llmbatch.core.types import Accepted, Failure, FailureKind, Status
from llmbatch.core.words import first_few, near, short
from llmbatch.programs.base import Ask, Branches, Complete, Incomplete, Program, ProgramKind, PromptFacts, RowAsk
from llmbatch.programs.capacity import Capacity, answer_tokens, capacity_of, room_of
from llmbatch.programs.chunks import markup_of, split, splitter_of

_TEXT = "text"  # the field of the document, where nothing else is said and the prompt takes it
_PART, _PARTS = "part", "parts"
_PARTIALS, _JOINED = "partials", "joined"
_LEAST_CHUNK = 32  # tokens: with less room than that a document would be thousands of requests about nothing
_GROUP = 4  # answers are planned together at least, since most are shorter than they may be; twice as many where nothing is known
_MANY_PARTS = 9999


class MapReduceSettings(BaseModel):
    """Where the document is, how it is cut, and how the answers are put together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    field: str = Field(
        "", description="the row's field with the document; by default text, else the one that the prompt needs"
    )
    chunk: int | None = Field(
        None, ge=1, description="tokens of a chunk at most; by default as many as fit beside the prompt and its answer"
    )
    overlap: int = Field(0, ge=0, description="tokens of the text before it that a chunk begins with, at most")
    markup: Literal["auto", "text", "markdown"] = Field(
        "auto", description="markdown: headings and lists are cut along; auto: as the row's media_type says, else text"
    )
    whole: bool = Field(True, description="a document that fits is asked about as it is, however small a chunk may be")
    reduce: str = Field("reduce", description="the prompt that puts answers together")
    most: int | None = Field(
        None, ge=2, description="answers that are put together at a time, at most; by default as many as fit"
    )
    always_reduce: bool = Field(False, description="a document of one chunk goes through the prompt reduce too")
    leave_out_failed: bool = Field(
        False, description="go on without chunks whose answers failed, as details say; by default their row fails"
    )
    details: bool = Field(True, description="keep the answers that were put together in the record's details")

    @model_validator(mode="after")
    def _fits_together(self) -> MapReduceSettings:
        if self.chunk is not None and self.overlap >= self.chunk:
            raise ValueError(f"overlap, {self.overlap:,} tokens, must be below chunk, which is {self.chunk:,}")
        return self


@dataclass(slots=True)
class _Part:
    """An answer: about a chunk (level 0), or one put together of those about the chunks from ``first`` to ``last``.

    ``entry`` is what the record's details say of it.
    """

    level: int
    first: int
    last: int
    entry: dict[str, Any]
    value: Any = None
    tokens: int = 0
    failure: Failure | None = None


_Answer = Generator[Any, Any, _Part]
_Tree = int | list[Any]
"""The number of a chunk, or the trees whose answers are put together."""


def map_reduce(row: RowAsk) -> Program:
    document = _begun(row)
    if not isinstance(document, _Document):
        answer = yield document
        return Complete(answer.value) if isinstance(answer, Accepted) else Incomplete()
    part = yield from document.answered(document.tree())
    if document.settings.always_reduce and part.failure is None and part.level == 0:
        part = yield from document.put_together([part])
    return document.result(part)


def _begun(row: RowAsk) -> _Document | Ask | Failure:
    """A row's document, cut where it must be; what there is to ask instead where it is no text, or why not."""
    settings: MapReduceSettings = row.settings
    text = row.row.data.get(settings.field)
    whole = _ask(row, "main", _numbered(row, 0, 1))
    if isinstance(whole, Failure) or not isinstance(text, str):
        return whole
    if not text.strip():
        said = f"row {short(row.row.id)}: the field {settings.field!r} is blank: there is nothing to ask about"
        return Failure(FailureKind.EMPTY_PROMPT, said)
    document = _Document(row, settings, text, [(0, len(text))])
    failure = None if document.fits(whole) else document.cut(whole) or document.plan(whole)
    return document if failure is None else failure


@dataclass(slots=True)
class _Document:
    """A document on its way. Its branches write what became of their own chunks and groups, and read nothing of each other."""

    row: RowAsk
    settings: MapReduceSettings
    text: str
    spans: list[tuple[int, int]]
    groups: tuple[int, int] = (_GROUP, _GROUP)  # how many answers are planned together: about chunks, and later ones
    capacity: Capacity | None = None  # of the prompt reduce; None: not known
    chunks: dict[int, _Part] = field(default_factory=dict)
    reductions: list[_Part] = field(default_factory=list)

    # before the first request

    def fits(self, whole: Ask) -> bool:
        """Whether the document is asked about as it is."""
        room, chunk = room_of(self.row, whole), self.settings.chunk
        if room is None:  # only a server can say
            return chunk is None
        return room >= 0 and (self.settings.whole or chunk is None)

    def cut(self, whole: Ask) -> Failure | None:
        """Cut the document into chunks; returns why that is impossible."""
        chunk, overlap = self.settings.chunk, self.settings.overlap
        capacity = capacity_of(
            self.row, lambda texts: self._ask_about(" ".join(texts), _MANY_PARTS - 1, _MANY_PARTS), self.text
        )
        if isinstance(capacity, Failure):
            return capacity
        most = min(size for size in (chunk, capacity and capacity.longest) if size is not None)
        if most < min(_LEAST_CHUNK, chunk or _LEAST_CHUNK) or most <= overlap:
            return self._no_room(whole, most)
        markup = markup_of(self.settings.markup, self.row.row.data.get("media_type"))
        cut = split(self.text, most, self.row.tokens, overlap=overlap, markup=markup)
        self.spans = [(chunk.start, chunk.end) for chunk in cut]
        return None

    def plan(self, whole: Ask) -> Failure | None:
        """Plan how many answers are put together; returns why that is impossible."""
        capacity = capacity_of(self.row, self._ask_to_reduce, self.text)
        if isinstance(capacity, Failure):
            return capacity
        self.capacity = capacity
        most = self.settings.most or len(self.text)
        if capacity is None:
            self.groups = (min(most, 2 * _GROUP),) * 2
            return None
        reduce = self._ask_to_reduce([_PARTIALS])
        if isinstance(reduce, Failure):
            return reduce
        fit = [capacity.room // capacity.cost(answer_tokens(self.row, ask)) for ask in (whole, reduce)]
        self.groups = min(most, max(_GROUP, fit[0])), min(most, max(_GROUP, fit[1]))
        return None

    def tree(self) -> _Tree:
        """Which answers are put together: neighbours, as many as planned at most, in groups that are even."""
        nodes: list[_Tree] = list(range(len(self.spans)))
        most, later = self.groups
        while len(nodes) > 1:
            count = -(-len(nodes) // most)
            edges = [len(nodes) * number // count for number in range(count + 1)]
            groups = [nodes[start:end] for start, end in pairwise(edges)]
            nodes = [group if len(group) > 1 else group[0] for group in groups]
            most = later
        return nodes[0]

    def _no_room(self, whole: Ask, room: int) -> Failure:
        overlap = f", {self.settings.overlap:,} of them for an overlap" if self.settings.overlap else ""
        return Failure(
            FailureKind.TOO_LONG,
            f"row {short(self.row.row.id)}: the document is too long, and cannot be cut: beside the prompt and an answer of "
            f"{answer_tokens(self.row, whole):,} tokens the context of {self.row.context_length:,} has room for {max(0, room):,} "
            f"tokens of it{overlap}: lower sampling.max_tokens, shorten the prompt, or give the engine a larger max_model_len",
        )

    # asking

    def answered(self, tree: _Tree) -> _Answer:
        """The answer of a tree: the trees in it go on side by side, then theirs are put together."""
        if isinstance(tree, int):
            return (yield from self._about_chunk(tree))
        return (yield from self._all_together((yield Branches([self.answered(below) for below in tree]))))

    def put_together(self, parts: Sequence[_Part]) -> _Answer:
        """One answer of several."""
        first, last, level = parts[0].first, parts[-1].last, 1 + max(part.level for part in parts)
        made = _Part(level, first, last, {"level": level, "chunks": [first, last], "partials": len(parts)})
        self.reductions.append(made)
        ask = self._ask_to_reduce([part.value for part in parts])
        self._take(made, ask, (yield ask), f"putting the answers about chunks {first} to {last} together")
        return made

    def _about_chunk(self, number: int) -> _Answer:
        start, end = self.spans[number]
        part = self.chunks[number] = _Part(0, number, number, {"start": start, "end": end})
        ask = self._ask_about(self.text[start:end], number, len(self.spans))
        where = f"chunk {number} of {len(self.spans):,}, characters {start:,} to {end:,}"
        self._take(part, ask, (yield ask), where)
        return part

    def _all_together(self, parts: Sequence[_Part]) -> _Answer:
        """Answers put together: at once, or where they are longer than was planned in several rounds."""
        while True:
            good = [part for part in parts if part.failure is None]
            failed = [part for part in parts if part.failure is not None]
            if failed and not (good and self.settings.leave_out_failed and all(part.level == 0 for part in failed)):
                return failed[0]
            groups = self._groups(good)
            if len(groups) == 1:
                return good[0] if len(good) == 1 else (yield from self.put_together(good))
            if len(groups) == len(good):
                return self._too_long(good)
            parts = yield Branches([self._all_together(group) for group in groups])

    def _groups(self, parts: list[_Part]) -> list[list[_Part]]:
        """Neighbours that fit together."""
        capacity, most = self.capacity, self.settings.most or len(parts)
        if capacity is None:
            return [parts]
        # as a text an answer has fewer tokens, if it had thoughts, or more, if it is garbled; counting takes time of the engine's
        if sum(capacity.cost(part.tokens) for part in parts) > capacity.room // 2:
            for part, tokens in zip(parts, self.row.tokens([_as_text(part.value) for part in parts]), strict=True):
                part.tokens = tokens
        groups: list[list[_Part]] = []
        room = 0
        for part in parts:
            cost = capacity.cost(part.tokens)
            if not groups or cost > room or len(groups[-1]) == most:
                groups.append([])
                room = capacity.room
            groups[-1].append(part)
            room -= cost
        return groups

    def _too_long(self, parts: Sequence[_Part]) -> _Part:
        first, last = parts[0].first, parts[-1].last
        tokens = first_few(parts, 4, lambda part: f"{part.tokens:,}")
        room = 0 if self.capacity is None else self.capacity.room
        failure = Failure(
            FailureKind.TOO_LONG,
            f"no two answers about chunks {first} to {last} fit together: they have {tokens} tokens, and the prompt "
            f"{self.settings.reduce} has room for {room:,}: ask for shorter ones, or give the engine a larger max_model_len",
        )
        return _Part(1 + max(part.level for part in parts), first, last, {}, failure=failure)

    def _ask_about(self, text: str, number: int, parts: int) -> Ask | Failure:
        return _ask(self.row, "main", {**_numbered(self.row, number, parts), self.settings.field: text})

    def _ask_to_reduce(self, values: Sequence[Any]) -> Ask | Failure:
        joined = "\n\n".join(map(_as_text, values))
        return _ask(self.row, self.settings.reduce, {_PARTIALS: list(values), _JOINED: joined})

    def _take(self, part: _Part, ask: Ask | Failure, answer: Any, where: str) -> None:
        """An answer, or why there is none, becomes that of the part."""
        entry = part.entry
        if isinstance(answer, Accepted):
            usage = answer.completion.usage
            part.value = answer.value
            part.tokens = max(len(answer.completion.token_ids), usage.completion_tokens)
            entry["status"] = Status.OK.value
            if self.settings.details:
                entry["output"] = answer.value
            # how much of it the prefix cache spared is not the same every time
            entry["usage"] = usage.for_details()
            return
        failure: Failure = ask if isinstance(ask, Failure) else answer
        part.failure = replace(failure, message=f"{where}: {failure.message}")
        entry["status"] = failure.kind.status.value
        entry["error"] = {"kind": failure.kind.value, "message": failure.message}

    def result(self, part: _Part) -> Complete | Incomplete:
        """What the program returns, once one answer is left."""
        if part.failure is None:
            part.entry.pop("output", None)
        reductions = sorted(self.reductions, key=lambda made: (made.level, made.first))
        details = {
            "chunks": [self.chunks[number].entry for number in range(len(self.spans))],
            "reductions": [made.entry for made in reductions],
        }
        if part.failure is None:
            return Complete(part.value, details)
        if len(self.spans) == 1 and not reductions:
            return Incomplete(details=details)  # that of its one request
        said = f"row {short(self.row.row.id)}: {part.failure.message}"
        return Incomplete(None, replace(part.failure, message=said), details)


def _ask(row: RowAsk, prompt: str, values: Mapping[str, Any]) -> Ask | Failure:
    """One answer, or why there is none."""
    ask = row.ask(prompt, **values)
    return ask if isinstance(ask, Failure) else replace(ask, samples=1, tells=True)


def _numbered(row: RowAsk, number: int, parts: int) -> dict[str, int]:
    values = {_PART: number + 1, _PARTS: parts}
    return {name: value for name, value in values.items() if name not in row.row.data}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# what is known before there is a row


def _prompts(settings: MapReduceSettings) -> Iterable[str]:
    return ("main", settings.reduce)


def _document_field(settings: MapReduceSettings, main: PromptFacts) -> str | None:
    """The field of the document; None where that cannot be told."""
    if settings.field or _TEXT in main.needs:
        return settings.field or _TEXT
    needed = [
        name
        for name, need in main.needs.items()
        if need.required and need.type in ("string", "any") and name not in (_PART, _PARTS)
    ]
    return needed[0] if len(needed) == 1 else None


def _problems(settings: MapReduceSettings, prompts: Mapping[str, PromptFacts]) -> Iterator[str]:
    main, reduce = prompts["main"], prompts[settings.reduce]
    splitter_of("text")  # the library that it needs is there
    name = _document_field(settings, main)
    taken = ", ".join(map(repr, main.needs)) or "no field"
    if name is None:
        yield f"which field has the document? The prompt takes {taken}: name it as program.settings.field"
    elif name not in main.needs:
        near_it = near(name, main.needs)
        yield f"field: the prompt does not take {name!r}{near_it}, but {taken}, so every chunk would be asked the same"
    elif main.needs[name].type not in ("string", "any"):
        yield f"field: the prompt takes {name!r} as {main.needs[name].type}, and a document is text"
    for called, facts in (("main", main), (settings.reduce, reduce)):
        if (facts.sampling.get("n") or 1) > 1:
            yield f"the prompt {called} asks for {facts.sampling['n']} answers (sampling.n), and one is put together with others"
    where = f"program.prompts.{settings.reduce}.fields"
    if name in reduce.needs:
        mapped = f"{where}: {{{name}: {_JOINED}}}"
        yield f"the prompt {settings.reduce} takes {name!r}, the whole document; where answers are meant: {mapped}"
    elif not {_PARTIALS, _JOINED} & reduce.needs.keys():
        yield (
            f"the prompt {settings.reduce} takes neither {_PARTIALS!r} nor {_JOINED!r}, the answers that it is to put together: "
            f"use one, or map it: {where}: {{VARIABLE: {_JOINED}}}"
        )
    for given, kind in ((_PARTIALS, "array"), (_JOINED, "string")):
        need = reduce.needs.get(given)
        if need is not None and need.type not in (kind, "any"):
            yield f"the prompt {settings.reduce} takes {given!r} as {need.type}, and it is of type {kind}"


def _settled(settings: MapReduceSettings, prompts: Mapping[str, PromptFacts]) -> MapReduceSettings:
    return settings.model_copy(update={"field": _document_field(settings, prompts["main"])})


def _requests(_settings: MapReduceSettings) -> int:
    return 2


def _later(_settings: MapReduceSettings) -> str:
    return "what puts answers about chunks together"


KIND = ProgramKind(
    map_reduce, MapReduceSettings, _prompts, _requests, problems=_problems, settled=_settled, later=_later
)
