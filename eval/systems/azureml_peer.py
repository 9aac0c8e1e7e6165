"""In the environment of azure-ai-ml: a list of documents with what we say of them in; whether its own loader says the same, out."""

from __future__ import annotations

import json
import logging
import sys
from importlib.metadata import version
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

from shown import Shown

_SYSTEM, _WITH = "Azure ML", "azure-ai-ml"


def theirs(path: str) -> str | None:
    """Why their loader refuses a document, or ``None``. The public one knows no ``settings``; for type model there is another."""
    import yaml
    from azure.ai.ml import load_batch_deployment
    from azure.ai.ml.entities._load_functions import load_model_batch_deployment

    load = (
        load_batch_deployment if "type" not in yaml.safe_load(Path(path).read_text()) else load_model_batch_deployment
    )
    try:
        load(source=path)
    except Exception as error:  # it has many kinds
        return " ".join(str(error).split()) or type(error).__name__
    return None


def main(listed: str) -> None:
    logging.disable(logging.CRITICAL)
    taken, refused, differ = [], [], []
    for each in json.loads(Path(listed).read_text()):
        said = theirs(each["file"])
        (refused if said else taken).append(each["what"])
        if (said is None) != (each["ours"] is None):
            differ.append(f"{each['what']}: theirs: {(said or 'taken')[:90]}; ours: {(each['ours'] or 'taken')[:90]}")
    claim = "Azure ML's own loader takes the documents that we take, and refuses those that we refuse"
    told = (
        f"{len(taken)} taken, {len(refused)} refused by both"
        if not differ
        else f"{len(differ)} differ: " + " | ".join(differ)
    )
    print(Shown(_SYSTEM, claim, _WITH, version(_WITH), not differ, told).as_line(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
