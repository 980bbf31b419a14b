"""What once failed: the counterexamples of earlier runs in this folder, to be asked first next time."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from properties.counterexample.minimise import leaves, replaced
from properties.counterexample.write import calls_of
from properties.implementations.calls import Asked
from properties.implementations.impl import Impl

PLACE = "runs/*/counterexamples/*.json"


@dataclass(frozen=True)
class Stored:
    """One counterexample of an earlier run, of this implementation or another's."""

    id: str
    claim: str
    calls: tuple[Asked, ...]

    @property
    def steps(self) -> tuple[str, ...]:
        """What an implementation must offer to be asked."""
        return tuple(dict.fromkeys(call.step for call in self.calls))


def stored(folder: Path) -> list[Stored]:
    """Every counterexample below `folder`, each once, in the order of their names."""
    found = {}
    for path in sorted(folder.glob(PLACE)):
        base = json.loads(path.read_text(encoding="utf-8"))
        found[base["id"]] = Stored(base["id"], base["claim"], tuple(calls_of(path)))
    return [found[name] for name in sorted(found)]


def in_dtype(impl: Impl, calls: Sequence[Asked]) -> list[Asked]:
    """The calls with their numbers rounded to the dtype the implementation is asked in."""
    rounded = []
    for call in calls:
        for path, array in leaves(call):
            if array.dtype.kind == "f":
                call = replaced(call, path, impl.representable(array))  # noqa: PLW2901 (one array after the other)
        rounded.append(call)
    return rounded
