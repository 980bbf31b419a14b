"""What implementations follow where there is a choice, grouped for a reader: dtypes that are alike share a line."""

from collections.abc import Iterable
from dataclasses import dataclass

from reports.records import Choice, Follows

UNDECLARED = "none declared: held to what eager and fused code may be off by"


@dataclass(frozen=True)
class Alike:
    """An implementation, and the dtypes in which it follows the same."""

    implementation: str
    where: str
    choices: tuple[Choice, ...]
    contract: str

    @property
    def found(self) -> str:
        """What probes have found out."""
        return _items(self.choices, "found")

    @property
    def declared(self) -> str:
        """What it says of itself, or was said of it."""
        return _items(self.choices, "declared")

    @property
    def differing(self) -> list[str]:
        """In a sequence each, where PyTorch does otherwise."""
        return [
            f"{each.what}: {each.meaning} (torch: {each.torch}; {each.name}={each.choice}, {each.how})"
            for each in self.choices
            if each.differs
        ]


def alike(follows: Iterable[Follows]) -> list[Alike]:
    """One for each implementation and what it follows, in order."""
    groups: dict[tuple[object, ...], list[Follows]] = {}
    for each in follows:
        told = tuple((one.name, one.choice, one.how, one.differs and one.torch) for one in each.conventions)
        groups.setdefault((each.implementation, told, each.contract), []).append(each)
    return [
        Alike(first.implementation, ", ".join(map(_where, (first, *others))), tuple(first.conventions), first.contract)
        for first, *others in groups.values()
    ]


def _where(of: Follows) -> str:
    return of.dtype if of.device == "cpu" else f"{of.dtype} on {of.device}"


def _items(choices: Iterable[Choice], how: str) -> str:
    return " ".join(f"{each.name}={each.choice}" for each in choices if each.how == how)
