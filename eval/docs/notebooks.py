"""The example notebooks, each as the cells that it is made of, in; ``examples/*.ipynb`` with what their cells show out.

    python eval/docs/notebooks.py [--without-running]

Each is run from its first cell to its last, in a folder of its own, with the engine that its first cell of code names.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

SUMMARIES = [
    """# Summaries

A corpus that every Python has: the chapters of its reference that `help("if")` shows. Each is summed up in 40 words.

The first cell says on what: the scripted engine rehearses, with an echo for an answer; `"Qwen/Qwen3-8B", {}` is the
real thing, on vLLM.""",
    'MODEL, ENGINE = "any", {"name": "scripted"}',
    """from pydoc_data.topics import topics

rows = [{"id": name, "text": text.strip()} for name, text in sorted(topics.items())]
len(rows), sum(len(row["text"]) for row in rows)""",
    "The run shows how far it is. Interrupt the kernel and run the cell again: it goes on where it was.",
    """import llmbatch

run = llmbatch.run(
    model=MODEL,
    engine=ENGINE,
    prompt={"path": "summarize", "variables": {"max_words": 40}},
    input=rows,
    output="summaries",
)
run""",
    "One record, with everything that is known of it:",
    "next(iter(run))",
    "All of them as a `datasets.Dataset`:",
    'run.to_dataset().select_columns(["id", "status", "output"])',
    "Without a run folder, as they are ready. A notebook's event loop is no hindrance:",
    """for record in llmbatch.generate(rows[:3], model=MODEL, engine=ENGINE, prompt="In one word: {{ id }}"):
    print(record.id, record.status, record.output)""",
]

DATASET = [
    """# A dataset

Rows that nobody has yet: questions are made up, those that will do are kept, and the rest says why it fell. Then they
are published with a card.

The first cell says on what: the scripted engine rehearses; `"Qwen/Qwen3-8B", {}` is the real thing, on vLLM.""",
    'MODEL, ENGINE = "any", {"name": "scripted"}',
    """import llmbatch

run = llmbatch.run(
    model=MODEL,
    engine=ENGINE,
    prompt="Write a question about {{ topic }} that takes {{ level }} steps to answer.",
    input={"rows": 40, "seed": 1, "draw": {"topic": ["tides", "bridges", "bread", "maps"], "level": {"from": 1, "to": 5}}},
    output="questions",
    accept={"rows": 12, "when": ["row.level >= 2", "output | length > 20"]},
)
run""",
    "The accepted ones, in input order; the same ones after any number of interruptions:",
    "[record.output for record in run.accepted()][:3]",
    "What became of the candidates:",
    """accept = run.report["accept"]
accept["accepted"], accept["candidates"], {reason: fell["rows"] for reason, fell in accept["fell"].items()}""",
    "A folder that `datasets.load_dataset` reads. With `push_to` it goes to the hub, in one commit.",
    """published = llmbatch.publish(run, "questions-dataset", split={"test": 0.25}, license="cc0-1.0")
published.splits, published.dropped""",
    'print((published.folder / "README.md").read_text()[:600])',
]

EVALUATION = [
    """# An evaluation

The model that comes with llmbatch translates numbers. Greedily, and drawn at a temperature of 1: is one better, or is that luck?

The first cell says on what: the transformers engine runs it anywhere (`pip install 'llmbatch[transformers,eval]'`);
`{}` is vLLM.""",
    'MODEL, ENGINE = "demo", {"name": "transformers"}',
    """import llmbatch

greedy = llmbatch.evaluate("demo-numbers", model=MODEL, engine=ENGINE, output="greedy", limit=120)
greedy""",
    """warm = llmbatch.evaluate(
    "demo-numbers", model=MODEL, engine=ENGINE, output="warm", limit=120, sampling={"temperature": 1.0, "seed": 1}
)
{name: (figure.value, figure.low, figure.high) for name, figure in warm.scores.overall.figures.items()}""",
    "Both asked the same rows, so they are paired: how far apart, and could that be luck?",
    """from pathlib import Path

from llmbatch.evals.compare import compare

for found in compare([Path("greedy"), Path("warm")]).compared:
    print(found)""",
]

NOTEBOOKS = {"summaries": SUMMARIES, "dataset": DATASET, "evaluation": EVALUATION}
CODE = ("import ", "from ", "MODEL", "next(", "run", "for ", "[", "accept", "published", "print", "greedy", "warm")


def notebook(cells: list[str]) -> nbformat.NotebookNode:
    made = nbformat.v4.new_notebook(
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python"},
        }
    )
    for number, text in enumerate(cells):
        new = nbformat.v4.new_code_cell if text.startswith(CODE) else nbformat.v4.new_markdown_cell
        cell = new(text)
        cell["id"] = f"cell-{number}"  # the same every time
        made.cells.append(cell)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without-running", action="store_true", help="cells without what they show")
    options = parser.parse_args()
    os.environ["PYTHONWARNINGS"] = "ignore"  # what libraries say of this machine
    for name, cells in NOTEBOOKS.items():
        made = notebook(cells)
        if not options.without_running:
            with tempfile.TemporaryDirectory() as folder:
                NotebookClient(
                    made, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}
                ).execute()
            for cell in made.cells:
                cell.metadata.pop("execution", None)  # when each cell ran
        nbformat.write(made, EXAMPLES / f"{name}.ipynb")


if __name__ == "__main__":
    main()
