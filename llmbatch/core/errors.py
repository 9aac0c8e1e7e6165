"""What ends a job. A bad row is data (a ``Failure`` in its record); only a broken job is an exception.

LlmbatchError                    everything below; has an exit code
├── UsageError                   the command, job file or API call is wrong: exit 2, nothing was started
│   ├── JobError                 unknown key, wrong value, missing setting, unknown name
│   ├── PromptError              a prompt file that cannot be used
│   ├── SchemaError              an output schema that cannot be used or satisfied
│   └── SourceError              an input that is missing, empty or not in the format said
├── RunError                     the run broke: exit 1, resumable unless it says otherwise
│   ├── FolderError              the run folder is another job's, damaged, or of a newer version
│   │   └── Locked               another run has the folder
│   ├── InputChanged             the input is not what the run began with
│   ├── ReadError                the input failed half-way
│   ├── WriteError               the disk is full or failed
│   ├── EngineError              the engine cannot start, or keeps dying
│   │   ├── EngineDied           one death, with requests in flight; the runner restarts it
│   │   └── OutOfMemory          the model or its cache does not fit
│   ├── PushError                a hub would not take a dataset, which lies whole on the disk
│   ├── TooManyFailures          --max-failures
│   └── TooFewAccepted           accept.give_up
└── Stopped                      SIGINT, SIGTERM or a budget: exit 130, resumable
"""

from __future__ import annotations


class LlmbatchError(Exception):
    """Base of every error that llmbatch raises on purpose. ``str(error)`` says what was seen, where, and what to try."""

    exit_code = 1


class UsageError(LlmbatchError):
    exit_code = 2


class JobError(UsageError):
    pass


class PromptError(UsageError):
    pass


class SchemaError(UsageError):
    pass


class SourceError(UsageError):
    pass


class RunError(LlmbatchError):
    exit_code = 1


class FolderError(RunError):
    pass


class Locked(FolderError):
    pass


class InputChanged(RunError):
    pass


class ReadError(RunError):
    pass


class WriteError(RunError):
    pass


class EngineError(RunError):
    pass


class EngineDied(EngineError):
    """``suspect``: a request in flight may be why. A lost connection, or a machine that went away, is no request's fault."""

    def __init__(self, message: str, *, suspect: bool = True) -> None:
        super().__init__(message)
        self.suspect = suspect


class NotServed(EngineError):
    """The servers know of no such model or path. Before any answer that is wrong usage, after one it is an outage."""


class OutOfMemory(EngineError):
    pass


class PushError(RunError):
    pass


class TooManyFailures(RunError):
    pass


class TooFewAccepted(RunError):
    pass


class Stopped(LlmbatchError):
    exit_code = 130
