"""``make engines``: every engine's figures in turn, and what they come to, together in ``RESULTS.md``.

    run.py [NAME...]

A program beside this one measures one thing, and writes its figures as JSON beside it, under its own name. A
``report(figures)`` of its own gives the lines of its section from them; without one they are shown as they are. With names
only those are measured anew; the others' figures stay. Each runs in a process of its own: what one keeps in memory, or how it
ends, is nothing to the others.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from llmbatch.core.versions import versions

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
_HEAD = (
    "# Engines against the real servers and libraries that they speak to",
    "",
    "Made by `make engines`. Each part says what it ran against; one that could not run says why, and counts as not shown.",
    "",
)


def made_with(here: Path = HERE) -> dict[str, Any]:
    """What figures depend on that a program ``here`` makes: versions, and the commit; ``+`` behind it where the tree has changes
    that are in none. What was measured before is no change: figures of other parts stand beside the programs."""
    git = ["git", "-C", str(here)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    made = ["../../llmbatch", ".", ":(exclude)*.json", ":(exclude)*.md"]
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *made], check=False)
    return {"versions": versions(), "commit": commit.stdout.strip() + ("+" if changed.returncode else "")}


def parts() -> list[str]:
    """The modules beside this one, by name; ``NAME_peers`` holds the other programs that ``NAME`` is measured against."""
    names = (path.stem for path in HERE.glob("*.py") if path != Path(__file__))
    return sorted(name for name in names if not name.endswith("_peers"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(parts())}; by default all")
    given = parser.parse_args().names or parts()
    if unknown := sorted(set(given) - set(parts())):
        parser.error(f"{', '.join(unknown)}: known are {', '.join(parts())}")
    failed = []
    for name in given:
        began = time.monotonic()
        print(f"{name} ...", file=sys.stderr, flush=True)
        code = subprocess.run([sys.executable, str(HERE / f"{name}.py")], check=False).returncode
        if code:
            failed.append(name)
        said = f"it failed (exit code {code})" if code else "done"
        print(f"{name}: {said}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    write()
    return 1 if failed else 0


def write() -> None:
    """Put the figures that are there together."""
    lines = list(_HEAD)
    for name in parts():
        figures = HERE / f"{name}.json"
        if figures.exists():
            report = getattr(importlib.import_module(name), "report", None)
            found = json.loads(figures.read_text(encoding="utf-8"))
            lines += [*(_plain(name, found) if report is None else report(found)), ""]
    RESULTS.write_text("\n".join(lines), encoding="utf-8")


def _plain(name: str, figures: Any) -> list[str]:
    return [f"## {name}", "", "```json", *json.dumps(figures, indent=1, ensure_ascii=False).splitlines(), "```"]


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    sys.exit(main())
