"""The loop around an arm: commands as JSON lines on stdin, an answer for each on stdout; what engines print goes to stderr.

    {"do": "run", "shape": name, "source": path, "requests": path, "target": folder}   from the input file to an output on disk
    {"do": "reset"}                                                                    forget what the prefix cache holds

The answer to ``run`` is what the arm has to say about it besides its duration, which the caller measures.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Task:
    """One repetition. ``target`` is an empty folder for whatever the arm writes."""

    shape: str
    source: Path
    requests: Path
    target: Path


class Arm(Protocol):
    def run(self, task: Task) -> Mapping[str, Any]: ...

    def reset(self) -> None: ...

    def close(self) -> None: ...


def serve(make: Callable[[dict[str, Any]], Arm]) -> None:
    """Make the arm with the settings in ``argv[1]`` (JSON), and serve until stdin ends."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        arm = make(json.loads(sys.argv[1]))
        for line in sys.stdin:
            command = json.loads(line)
            if command.pop("do") == "reset":
                arm.reset()
                gc.collect()
                said: Mapping[str, Any] = {}
            else:
                shape = command.pop("shape")
                said = arm.run(Task(shape, **{name: Path(path) for name, path in command.items()}))
            answers.write(json.dumps(said) + "\n")
            answers.flush()
        arm.close()


def write_answers(target: Path, lines: list[dict[str, Any]]) -> None:
    """The file of answers as a short script writes it: an object with ``id`` and ``text`` a line, in input order."""
    with (target / "answers.jsonl").open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
