"""Rows that were answered with one text and nothing more in; their lines of Bedrock's output as bytes out, quickly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmbatch.core.quick_json import Form, hole, text_json, value_json
from llmbatch.formats.bedrock.base import Family
from llmbatch.formats.bedrock.format import Bedrock, begins_answer, record_id
from llmbatch.formats.outcome import plain_text


class PlainLines:
    """What ``Bedrock.line`` and ``json_line`` make of such rows."""

    def __init__(self, format_: Bedrock, model: str) -> None:
        self._format = format_
        self._known = {"model": text_json(format_.model or model)}
        self._forms: dict[
            int, list[Form]
        ] = {}  # by family, of which there is one object each: for whole replies, and for those cut off

    def line(self, record: Mapping[str, Any], row: Mapping[str, Any]) -> bytes | None:
        """The line of a row's record, or ``None`` where it is another kind of row."""
        text, body = plain_text(record), row.get("modelInput")
        if text is None or body.__class__ is not dict or begins_answer(body):
            return None
        family = self._format.family(body)  # it was answered, so that its body has one
        if family.plain is None:
            return None
        forms = self._forms.get(id(family)) or self._made(family)
        usage, index = record["usage"], record["index"]
        asked, given = usage["prompt_tokens"], usage["completion_tokens"]
        texts: dict[str, str | int] = {
            "id": value_json(record_id(row, index)),
            "input": value_json(body),
            "text": text_json(text),
            "number": f"{index:012d}",
            "asked": asked,
            "given": given,
            "together": asked + given,
        }
        cut: bool = record["finish_reason"] == "length"
        return forms[cut].line(texts)

    def _made(self, family: Family) -> list[Form]:
        assert family.plain is not None  # noqa: S101 - for the type checker
        replies = (family.plain(cut) for cut in (False, True))
        forms = [
            Form({"recordId": hole("id"), "modelInput": hole("input"), "modelOutput": reply}, known=self._known)
            for reply in replies
        ]
        self._forms[id(family)] = forms
        return forms


__all__ = ["PlainLines"]
