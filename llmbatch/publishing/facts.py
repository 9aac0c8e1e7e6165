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
        "program_settings": _plain(manifest.identity, "program.settings."),
        "prompts": _prompts(run),
        "answer": _plain(manifest.identity, "answer."),
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
    engine = {**_plain(identity, "engine.args."), **_plain(came_out, "engine.args.")}
    engine = {name: value for name, value in engine.items() if " " not in name}
    adapters = {name: _nameless(place) for name, place in _plain(identity, "engine.lora.").items() if " " not in name}
    return {
        "model": _named(str(_value(identity.get("model")))),
        "commit": _value(came_out.get("engine.args.revision") or identity.get("engine.args.revision")),
        "weights": _weights({name: digest for name, digest in digests.items() if name.endswith(_WEIGHTS)}),
        "adapters": adapters,
        "engine": _value(came_out.get(ENGINE_VERSION)) or _value(identity.get("engine.name")),
        "engine_settings": {name: _nameless(engine[name]) for name in sorted(engine) if name != "revision"},
        "sampling": _plain(identity, "sampling."),
    }


def _weights(digests: Mapping[str, str]) -> dict[str, Any] | None:
    """The files of a local model's weights, and one digest for all of them."""
    if not digests:
        return None
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(digests.items()))
    return {"files": dict(digests), "digest": hashlib.sha256(lines.encode()).hexdigest()[:32]}


def _prompts(run: FinishedRun) -> list[dict[str, Any]]:
    """Every prompt, the main one first, with its digest in the run's identity; its text, where it is still the same."""
    now = _prompts_now(run)
    found: list[dict[str, Any]] = []
    for key, digest in run.manifest.identity.items():
        if key.endswith(" (text)"):
            name = "main" if key == PROMPT else key.removesuffix(" (text)").removeprefix("program.prompts.")
            same, text = now.get(key, ("", ""))
            said = {"text": text} if same == digest else {"note": "the prompt has changed since the run, or is gone"}
            found.append({"prompt": name, "digest": digest, **said})
    if run.job.prompt is None:
        found[0] |= {"text": None, "note": "each row of the input is a request of its own"}
    elif run.job.prompt.variables:
        found[0]["variables"] = dict(run.job.prompt.variables)
    return sorted(found, key=lambda prompt: bool(prompt["prompt"] != "main"))


def _prompts_now(run: FinishedRun) -> dict[str, tuple[str, str]]:
    """What the run's prompts are by now, by their keys in its identity: digest and text."""
    try:
        identity, paths = run.recipe.identity(), {PROMPT: run.job.prompt.path if run.job.prompt else None}
        paths |= {f"program.prompts.{name} (text)": step.path for name, step in run.recipe.program.prompts.items()}
        return {key: (identity[key], read_prompt(path).text) for key, path in paths.items() if path is not None}
    except LlmbatchError:
        return {}


def _changed(base: Manifest, retry: Manifest | None) -> dict[str, Any]:
    """What a retry of the rows that were not ok had otherwise than its run."""
    if retry is None:
        return {}
    ours, theirs = ({**_asked_with(each), "prompt": each.identity.get(PROMPT)} for each in (base, retry))
    return {key: value for key, value in theirs.items() if value != ours[key]}


def _plain(identity: Mapping[str, str], start: str) -> dict[str, Any]:
    """The part of an identity whose keys begin so, with its values as they were."""
    return {
        key.removeprefix(start): value if key.endswith(")") else _value(value)  # with a word in brackets it is a digest
        for key, value in identity.items()
        if key.startswith(start)
    }


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
