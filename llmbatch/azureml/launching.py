"""A document as it is run here in; how its script is started, and what its rows depend on, out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from llmbatch.azureml.files import Files, code_digest
from llmbatch.azureml.process import Launch
from llmbatch.core.digest import short_digest
from llmbatch.core.errors import JobError
from llmbatch.core.files import writing
from llmbatch.sources.places import is_url
from llmbatch.systems.azure_ml.parallel import OUTPUT
from llmbatch.systems.azure_ml.scoring import Scoring, Script


def model_of(scoring: Scoring) -> Path | None:
    """The model's folder or file, where the document has one. Raises ``JobError`` where it is not there."""
    if scoring.model is None:
        return None
    if is_url(scoring.model):
        raise JobError(
            f"{scoring.model}: a script opens its model's files by itself: download them, and give their folder"
        )
    path = Path(scoring.model)
    if not path.exists():
        raise JobError(f"{path}: there is no such model; say where it lies, --asset NAME=FOLDER, or mend the document")
    return path


def identity_of(scoring: Scoring, script: Script, model: Path | None, files: Files) -> Mapping[str, str]:
    """What rows depend on, by the names that a message has for it."""
    return {
        "scoring script": short_digest(f"{script.file}\0{code_digest(script.code)}"),
        "model": str(model),
        "mini_batch_size": str(scoring.mini_batch_size),
        "output": f"{scoring.output_file}",
        "arguments of the script": short_digest(json.dumps(script.arguments)),
        "environment_variables": short_digest(json.dumps(dict(script.environment), sort_keys=True)),
        "input": f"{len(files)} files, {files.fingerprint()}",
    }


def launch_of(scoring: Scoring, script: Script, hidden: Path, python: str, model: Path | None) -> Launch:
    """How its processes are started; the folders that it expects are made. Raises ``WriteError``."""
    output = hidden.parent
    environment = {**script.environment, "AZUREML_BI_OUTPUT_PATH": str(output)}
    if model is not None:
        environment["AZUREML_MODEL_DIR"] = str(_model_folder(model, hidden / "model"))
    with writing(output):
        for name in scoring.output_folders:
            (output / name).mkdir(exist_ok=True)
    arguments = [argument.replace(OUTPUT, str(output)) for argument in script.arguments]
    arguments += ["--logging_level", scoring.logging_level.upper()]
    return Launch(python, script, arguments, environment, scoring.start_timeout, scoring.timeout)


def _model_folder(model: Path, folder: Path) -> Path:
    """A folder of links: what is in the model's, and the model's itself by its name. Scripts look for either."""
    with writing(folder):
        folder.mkdir(exist_ok=True)
        for link in folder.iterdir():
            link.unlink()
        for path in [*(sorted(model.iterdir()) if model.is_dir() else ()), model]:
            if not (folder / path.name).is_symlink():
                (folder / path.name).symlink_to(path.absolute())
    return folder
