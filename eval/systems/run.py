"""``make systems``: what is claimed of the eight systems, tried against the real thing: ``results.json`` and ``RESULTS.md``.

    run.py [NAME...]

A module beside this one is a part; see ``shown.py``. With names only those are tried anew; the other parts' rows stay.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
# A part may be called as the package that it tries: what is installed is looked for first.
sys.path = [path for path in sys.path if path != str(HERE)] + [str(HERE)]

from shown import Shown  # noqa: E402

RESULTS, ROWS = HERE / "RESULTS.md", HERE / "results.json"
_NO_PARTS = frozenset({"formats", "run", "shown", "stores"})
_PEER = "_peer"  # ends the name of a program that a part starts in a peer's environment
_MARKS = {True: "yes", False: "**no**", None: "not shown"}
_HEAD = (
    "# The eight systems, against real clients, servers and libraries",
    "",
    "Made by `make systems`. Each row says what ran, its version and what came of it; what could not run says why, and counts",
    "as not shown. A stand-in is called one.",
    "",
)


def parts() -> list[str]:
    """The parts by name."""
    names = {path.stem for path in HERE.glob("*.py")} - _NO_PARTS
    return sorted(name for name in names if not name.endswith(_PEER))


def results_of(name: str) -> Iterator[Shown]:
    """The rows of one part; an error in it is a row too."""
    try:
        place = importlib.util.spec_from_file_location(f"part_{name}", HERE / f"{name}.py")
        assert place is not None and place.loader is not None
        part = importlib.util.module_from_spec(place)
        sys.modules[place.name] = part
        place.loader.exec_module(part)
        yield from part.results()
    except Exception as error:  # one that fails must not keep the others from being tried
        yield Shown(name, "the part runs to its end", f"{name}.py", "", False, f"{type(error).__name__}: {error}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(parts())}; by default all")
    given = parser.parse_args().names or parts()
    if unknown := sorted(set(given) - set(parts())):
        parser.error(f"{', '.join(unknown)}: known are {', '.join(parts())}")
    failed = False
    for name in given:
        began = time.monotonic()
        rows: list[Shown] = []
        for row in results_of(name):
            rows.append(row)
            print(row.as_line(), flush=True)
            failed = failed or row.passed is False
        _keep(name, rows)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return 1 if failed else 0


def _keep(name: str, rows: list[Shown]) -> None:
    """Put a part's rows in the place of its earlier ones, and write the table anew."""
    known = json.loads(ROWS.read_text(encoding="utf-8")) if ROWS.exists() else {}
    known[name] = [row._asdict() for row in rows]
    known = {part: known[part] for part in sorted(known) if part in parts()}
    ROWS.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    RESULTS.write_text("\n".join(table([Shown(**row) for part in known.values() for row in part])), encoding="utf-8")


def table(rows: list[Shown]) -> list[str]:
    """The lines of ``RESULTS.md``."""
    passed = sum(row.passed is True for row in rows)
    refuted = sum(row.passed is False for row in rows)
    lines = [
        *_HEAD,
        f"{passed} of {len(rows)} shown, {refuted} not passed, {len(rows) - passed - refuted} could not run.",
        "",
        "| system | what is claimed | ran against | version | passed | what was seen |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row.system.lower()):
        cells = (row.system, row.claim, row.with_what, row.version, _MARKS[row.passed], row.said)
        lines.append("| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |")
    return [*lines, ""]


if __name__ == "__main__":
    sys.exit(main())
