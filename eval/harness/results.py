"""A section of RESULTS.md in; that file out, with the section in the place of an earlier one of its title."""

from __future__ import annotations

import re
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")


def write(section: str, path: Path = RESULTS) -> None:
    """``section`` begins with its title (``## ...``); what else the file has stays."""
    title = section.partition("\n")[0]
    text = path.read_text(encoding="utf-8") if path.exists() else "# Evaluations\n"
    without = re.sub(rf"\n*{re.escape(title)}\n.*?(?=\n## |\Z)", "", text, flags=re.DOTALL).rstrip()
    path.write_text(f"{without}\n\n{section.rstrip()}\n", encoding="utf-8")
