"""Fault points: places where a test kills the process on purpose, so that what must survive a kill there is seen to survive it.

``LLMBATCH_FAULT=name:3`` ends the process by SIGKILL the third time that it passes the point ``name``; ``name/detail:1`` counts
only those of one file. Unset, a point costs one look at a module variable.

| point | where |
|---|---|
| ``journal-opened`` | a window's journal has its header |
| ``journal-torn`` | half of what was to be appended to a journal is written |
| ``journal-append`` | all of it is |
| ``meta-written`` | a window's meta file is there, its part is not |
| ``temp-written/NAME`` | NAME (a part, ``results.jsonl``, ``report.json``, ``run.json``, ...) lies there under its temporary name |
| ``renamed/NAME`` | it has its own name, and the folder is not synced yet |
| ``folder-away/NAME`` | the folder NAME is out of the way of the one that takes its place |
| ``order-block`` | a block of the input was read for the order of the corpus |
| ``order-sorted`` | all of it was, and the sort is done |
| ``order-placed`` | the order is there, and nothing says yet that it is whole |
| ``part-sealed`` | a part is there, and its journal still |
| ``journal-removed`` | only the part is |
| ``results-written`` | results and errors are there, the report is not |
| ``report-written`` | the report is there, the session's end is not written down |
| ``azureml-rows`` | the rows of a mini-batch are written, its line in the journal is not |
| ``azureml-torn`` | half of that line is |
| ``azureml-journal`` | all of it is |
| ``dataset-made`` | a publication is whole, and has not taken the place of an earlier one |
| ``dataset-moved`` | the earlier one is out of its way |
| ``dataset-placed`` | it has its place, and the earlier one still lies beside it |
| ``file-stored`` | an uploaded file is there, the server's store does not know of it |
| ``batch-folder-made`` | a batch has its folder and its input, and the store does not know of it |
| ``batch-created`` | the store does, and nobody was told |
| ``batch-checked`` | a batch's input is known to be sound, the store does not say so |
| ``batch-run`` | a batch's run is over, the store does not say so |
| ``batch-results-written`` | its results are there, and the store does not know of them |
"""

from __future__ import annotations

import os
import signal

_name, _left = "", 1


def aim(fault: str) -> None:
    """Let this process end at a fault point, given as ``LLMBATCH_FAULT`` has it; at none where it is empty."""
    global _name, _left
    _name, _, count = fault.partition(":")
    _left = int(count or 1)


aim(os.environ.get("LLMBATCH_FAULT", ""))


def point(name: str, detail: str = "") -> None:
    """Pass a fault point; does nothing unless the environment names it."""
    if _name:
        _pass(name, detail)


def torn(name: str, data: bytes) -> bytes:
    """What of ``data`` is to be written before the point ``name``: half of it where the process ends there, else all."""
    if _name == name and _left == 1:
        return data[: len(data) // 2]
    return data


def _pass(name: str, detail: str) -> None:
    global _left
    if _name in {name, f"{name}/{detail}"}:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
