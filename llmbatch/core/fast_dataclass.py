"""``@fast_dataclass(frozen=True, slots=True)``: a dataclass that is frozen for the type checker, and quick to make when it runs."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as fast_dataclass
else:
    from dataclasses import dataclass

    def fast_dataclass(*, frozen, slots):
        """Every row makes a dozen values, and to make a frozen one takes three times as long: an eighth of the pipeline's time.

        mypy, which the tests run with, refuses every assignment to a field of theirs; nothing refuses it in a running program.
        """
        return dataclass(slots=slots, unsafe_hash=frozen)


__all__ = ["fast_dataclass"]
