"""Layout ``raw``: a record in, its fields out, with the row of the input beside them."""

from __future__ import annotations

from llmbatch.publishing.base import Candidate, Example, Layout, PublishSettings, as_text


def _examples(candidate: Candidate, settings: PublishSettings) -> list[Example]:
    fields = candidate.fields
    # named columns are put in where every layout's are
    columns = {} if settings.columns else {name: value for name, value in fields.items() if name != "run"}
    return [Example(columns, fields, as_text(fields.get("output")))]


LAYOUT = Layout(_examples)
