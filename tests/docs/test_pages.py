"""Every block of code in README, CONTRIBUTING and docs: it runs, or the page says why it cannot."""

from __future__ import annotations

import importlib
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

blocks = importlib.import_module("tests.docs.blocks")
given = importlib.import_module("tests.docs.conftest").given
PAGES = blocks.pages()
# The pages with a command of whose rows none is ok, that command, and why: the scripted engine gives the prompt back.
NONE_OK = {
    "docs/azureml.md": ("azureml", "a mini-batch leaves no report"),
    "docs/from/azure.md": ("azureml", "a mini-batch leaves no report"),
    "docs/from/nvidia.md": ("bench", "its report is trtllm-bench's"),
    "docs/how-to/evaluate.md": ("eval", "a prompt of gsm8k begins with what ends an answer"),
    "docs/how-to/summaries.md": ("yaml", "a prompt is longer than a summary may be"),
    "docs/how-to/translate.md": ("run", "a prompt has markup that its source has not"),
    "docs/openai-files.md": ("bench", "its report is trtllm-bench's"),
}


def run_block(block: Any, shell: Any) -> subprocess.CompletedProcess[str] | None:
    """Its process; None for a block that only shows something."""
    text = shell.here(block.text)
    name = block.title or f".block-{block.line}.{block.language}"
    path = shell.folder / name
    if block.language not in ("bash", "sh") or block.title:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    if block.language in ("bash", "sh"):
        return shell(f"bash {name}" if block.title and text.startswith("#!") else text)
    if block.language in ("yaml", "json"):
        return shell(f"{block.language} {name}")
    if block.title:  # a module, which the blocks that follow use
        return shell(f"python -m py_compile {name}")
    prelude = shell.folder / "prelude.py"
    if prelude.exists():
        path.write_text(prelude.read_text(encoding="utf-8") + "\n" + text, encoding="utf-8")
    return shell(f"python {name}")


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_runs(page: str, shell: Any) -> None:
    given(page, shell.folder)
    shell.may_have_none_ok(NONE_OK.get(page, ("", ""))[0])
    problems = []
    for block in blocks.blocks_of(page):
        if block.not_run is not None or block.language in blocks.SHOWN:
            continue
        assert block.language in blocks.RUN, f"{block.where}: a block says what it is: {blocks.RUN} or {blocks.SHOWN}"
        done = run_block(block, shell)
        if done is not None and done.returncode:
            problems.append(
                f"{block.where}: exit {done.returncode}\n{block.text}\n{done.stdout[-1500:]}{done.stderr[-2500:]}"
            )
    assert not problems, "\n\n".join(problems)


def test_what_is_not_run_is_listed_with_its_reason() -> None:
    assert blocks.LIST.read_text(encoding="utf-8") == blocks.listing(), "python tests/docs/blocks.py --write"


def heading_anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#{1,6} (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith("docs/reference/")])
def test_every_link_to_a_file_or_heading_leads_there(page: str) -> None:
    path = blocks.ROOT / page
    text = path.read_text(encoding="utf-8")
    prose = re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"\w+:", target):
            continue
        place, _, anchor = target.partition("#")
        file = (path.parent / place).resolve() if place else path
        if not file.exists() and not _is_elsewhere(file):
            wrong.append(f"{target}: there is no such file")
        elif (
            anchor and file.suffix == ".md" and file.exists() and anchor not in heading_anchors(file.read_text("utf-8"))
        ):
            wrong.append(f"{target}: {place or 'the page'} has no such heading")
    assert not wrong, f"{page}: {wrong}"


def _is_elsewhere(file: Path) -> bool:
    """Pages of the reference are made when the site is built; a source distribution has the pages without ``eval/``."""
    measured = blocks.ROOT / "eval"
    made = file.suffix == ".md" and file.parent == blocks.ROOT / "docs" / "reference"
    return made or (file.is_relative_to(measured) and not measured.is_dir())
