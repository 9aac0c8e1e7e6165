"""A finished run in; where its records come from, as plain data for a dataset's card and provenance, out.

No path of the machine that it ran on is among them: of a local model, a prompt file or an input it is the name and what is in it.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmbatch.core.errors import LlmbatchError
from llmbatch.folder.folder import ENGINE_VERSION, Manifest, find_report, read_manifest
from llmbatch.folder.overlay import finished_retries
from llmbatch.prompt.library import read_prompt
from llmbatch.publishing.finished import PROMPT, FinishedRun

_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth")


def facts_of(run: FinishedRun) -> dict[str, Any]:
    """All that is known of how a run came to its records."""
    manifest = run.manifest
    report = find_report(run.folder)
    began = datetime.datetime.fromtimestamp(manifest.created, datetime.UTC)
    facts: dict[str, Any] = {
        "run": run.name,
        "began": began.date().isoformat(),
        "rows_of": run.path.name,
        **_asked_with(manifest),
        "program": run.program,
        "prompts": _prompts(run),
        "answer": {key.removeprefix("answer."): _value(value) for key, value in _under(manifest, "answer.").items()},
        "input": [_named(str(entry.get("file", entry.get("dataset", "")))) for entry in manifest.fingerprint],
    }
    if report is not None:
        facts |= {
            "versions": report["versions"],
            "rows": {status: count for status, count in report["rows"]["by_status"].items() if count},
            "refusals": {kind: failure["rows"] for kind, failure in report["failures"].items()},
            "sent_back": {kind: sent["answers"] for kind, sent in report["sent_back"].items()},
            "tokens": report["tokens"]["total"],
        }
    if retries := finished_retries(run.folder):
        facts["retries"] = [_changed(manifest, read_manifest(retry)) for retry in retries]
    return facts


def _asked_with(manifest: Manifest) -> dict[str, Any]:
    """The model with what it is known by, the engine and the sampling."""
    identity, came_out = manifest.identity, manifest.came_out
    digests = {key.removeprefix("model "): digest for key, digest in identity.items() if key.startswith("model ")}
    engine = {**_under(manifest, "engine.args."), **_in(came_out, "engine.args.")}
    adapters = {key.removeprefix("engine.lora."): _named(str(_value(value)))
                for key, value in identity.items() if key.startswith("engine.lora.") and " " not in key}  # fmt: skip
    return {
        "model": _named(str(_value(identity.get("model")))),
        "commit": _value(came_out.get("engine.args.revision") or identity.get("engine.args.revision")),
        "weights": _weights({name: digest for name, digest in digests.items() if name.endswith(_WEIGHTS)}),
        "adapters": adapters,
        "engine": _value(came_out.get(ENGINE_VERSION)) or _value(identity.get("engine.name")),
        "engine_settings": {key.removeprefix("engine.args."): _nameless(_value(value)) for key, value in sorted(engine.items())
                            if key != "engine.args.revision" and " " not in key},
        "sampling": {key.removeprefix("sampling."): _value(value) for key, value in _under(manifest, "sampling.").items()},
    }  # fmt: skip


def _weights(digests: Mapping[str, str]) -> dict[str, Any] | None:
    """The files of a local model's weights, and one digest for all of them."""
    if not digests:
        return None
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(digests.items()))
    return {"files": dict(digests), "digest": hashlib.sha256(lines.encode()).hexdigest()[:32]}


def _prompts(run: FinishedRun) -> list[dict[str, Any]]:
    """Every prompt with its digest in the run's identity; its text, where it is still the same."""
    digests = {key: digest for key, digest in run.manifest.identity.items() if key.endswith(" (text)")}
    found = []
    for key, digest in digests.items():
        name = key.removesuffix(" (text)").removeprefix("program.prompts.")
        prompt: dict[str, Any] = {"prompt": "main" if name == "prompt" else name, "digest": digest}
        if name == "prompt":
            prompt |= _text(run)
        found.append(prompt)
    return found


def _text(run: FinishedRun) -> dict[str, Any]:
    if run.job.prompt is None:
        return {"text": None, "note": "each row of the input is a request of its own"}
    try:
        run.recipe  # noqa: B018 - it is found out here whether the prompt is still the same
        text = read_prompt(run.job.prompt.path).text
    except LlmbatchError:
        return {"text": None, "note": "the prompt has changed since the run, or is gone"}
    variables = {"variables": dict(run.job.prompt.variables)} if run.job.prompt.variables else {}
    return {"name": run.recipe.prompt_name, "text": text, **variables}


def _changed(base: Manifest, retry: Manifest | None) -> dict[str, Any]:
    """What a retry of the rows that were not ok had otherwise than its run."""
    if retry is None:
        return {}
    ours, theirs = _asked_with(base), {**_asked_with(retry), "prompt": retry.identity.get(PROMPT)}
    return {key: value for key, value in theirs.items() if value != ours.get(key, base.identity.get(PROMPT))}


def _under(manifest: Manifest, start: str) -> dict[str, str]:
    return _in(manifest.identity, start)


def _in(identity: Mapping[str, str], start: str) -> dict[str, str]:
    return {key: value for key, value in identity.items() if key.startswith(start)}


def _value(text: str | None) -> Any:
    """A value of an identity, which is JSON, or a digest."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def _nameless(value: Any) -> Any:
    return _named(value) if isinstance(value, str) else value


def _named(place: str) -> str:
    """A name on the hub as it is, a path by its last part."""
    return Path(place).name if place.startswith(("/", "~", ".")) else place
