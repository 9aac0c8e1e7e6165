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
    from azure.ai.ml import load_batch_deployment, load_job
    from azure.ai.ml.entities._load_functions import load_model_batch_deployment

    kind = yaml.safe_load(Path(path).read_text()).get("type")
    load = {None: load_batch_deployment, "pipeline": load_job}.get(kind, load_model_batch_deployment)
    try:
        load(source=path)
    except Exception as error:  # it has many kinds
        return " ".join(str(error).split()) or type(error).__name__
    return None


def main(listed: str) -> None:
    logging.disable(logging.CRITICAL)
    taken, refused, stricter, laxer = [], [], [], []
    for each in json.loads(Path(listed).read_text()):
        said = theirs(each["file"])
        ours = each["ours"]
        kind = (taken if ours is None else stricter) if said is None else (laxer if ours is None else refused)
        kind.append(each["what"])
    claim = "Azure ML's own loader takes the documents that we take; what it refuses, we refuse"
    told = f"{len(taken)} taken and {len(refused)} refused by both; only ours refuses: {', '.join(stricter) or 'none'}"
    told += f"; only theirs refuses: {', '.join(laxer)}" if laxer else ""
    print(Shown(_SYSTEM, claim, _WITH, version(_WITH), not laxer, told).as_line(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
