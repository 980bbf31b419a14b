"""What a user declares of an implementation from outside: conventions, whose they are (`like`), a contract, a domain.

Each is a mapping, as a class says it of itself, or a text of `name=value` items, as on a command line:

    conventions   fully_masked_row=nan,subnormals=flushed,mask_polarity=open    (open: found out by a probe)
    contract      mode=fused,split_k=2            or, for one dtype, bfloat16.mode=fused,bfloat16.accuracies.exp=4
    domain        d_k=16|32|64,d_v=d_k,n=multiple of 128,m=n,mask=none

What is declared here takes the place of what the implementation says of itself, item by item, and conventions that of `like`.
"""

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any, TypeVar

from properties.conventions.libraries import conventions_of
from properties.implementations.contract import DTYPES, Contract, declared
from properties.implementations.conventions import CHOICES, Conventions
from properties.implementations.domain import Domain
from properties.implementations.domain import read as read_domain

Anything = TypeVar("Anything")
Said = str | Mapping[str, Any] | None

OPEN = "open"  # a choice that is no choice
RENAMED: dict[Any, Any] = {
    "blind_row": "fully_masked_row",
    "blind_softmax": "fully_masked_softmax",
    ("mask_polarity", "may_look"): ("mask_polarity", "true_attends"),
    ("mask_polarity", "hidden"): ("mask_polarity", "true_masks"),
}
"""Names of veriformer 0.1, which are refused with the new one."""

READ: dict[type, tuple[str, Callable[[str], Any]]] = {
    bool: ("true or false", lambda text: {"true": True, "false": False}[text.lower()]),
    int: ("a whole number", int),
    float: ("a number", float),
    str: ("a word", str),
}
ACCURACIES = "accuracies"  # numbers by the name of a function
KINDS: dict[str, type] = {
    each.name: float if each.name == ACCURACIES else type(each.default) for each in fields(Contract) if each.name != "dtype"
}
"""The arguments of a contract, and what each is."""


def read_conventions(said: Said) -> dict[str, str | None]:
    """Conventions by name, None for one that is left open. Raises ValueError, in one line, for a name or a choice that is none."""
    found = {}
    for name, choice in _items("conventions", said):
        if name in RENAMED or (name, choice) in RENAMED:
            new = RENAMED.get(name) or "=".join(RENAMED[name, choice])
            raise ValueError(f"conventions: {name if name in RENAMED else f'{name}={choice}'} is {new} since veriformer 0.2")
        _known(f"conventions: no {name!r}", name, CHOICES)
        if choice in (OPEN, None):
            found[name] = None
            continue
        if choice not in CHOICES[name]:
            raise ValueError(f"conventions: {name}: expected one of {', '.join(CHOICES[name])}, got {choice!r}")
        found[name] = choice
    return found


def read_contract(said: Said) -> dict[str, Any] | None:
    """What a contract says, the same for all dtypes or by dtype; None for nothing. Raises ValueError for what is no argument."""
    everywhere: dict[str, Any] = {}
    by_dtype: dict[str, dict[str, Any]] = {}
    for path, value in _items("contract", said):
        dtype, _, rest = path.partition(".")
        part, name = (by_dtype.setdefault(dtype, {}), rest) if dtype in DTYPES else (everywhere, path)
        name, _, function = name.partition(".")
        _known(f"contract: no {path!r}", name, KINDS)
        if name == ACCURACIES:
            part.setdefault(ACCURACIES, {})[function] = _as(float, path, value)
        else:
            part[name] = _as(KINDS[name], path, value)
    if not by_dtype:
        return everywhere or None
    return {dtype: everywhere | by_dtype.get(dtype, {}) for dtype in DTYPES if everywhere or dtype in by_dtype}


def _items(what: str, said: Said) -> Iterable[tuple[str, Any]]:
    """The names, dotted where they are nested, and the values."""
    if isinstance(said, Mapping):
        for name, value in said.items():
            if isinstance(value, Mapping):
                yield from ((f"{name}.{inner}", each) for inner, each in _items(what, value))
            else:
                yield str(name), value
        return
    for item in filter(None, map(str.strip, (said or "").split(","))):
        name, equals, value = map(str.strip, item.partition("="))
        if not (name and equals and value):
            raise ValueError(f"{what}: expected name=value, got {item!r}")
        yield name, value


def _known(complaint: str, name: str, names: Iterable[str]) -> None:
    if name not in (known := list(names)):
        close = get_close_matches(name, known, n=1)
        raise ValueError(f"{complaint}{f'; did you mean {close[0]}?' if close else ''}; expected some of {', '.join(known)}")


def _as(kind: type, path: str, value: Any) -> Any:
    expected, read = READ[kind]
    try:
        return read(str(value))
    except (KeyError, ValueError):
        raise ValueError(f"contract: {path}: expected {expected}, got {value!r}") from None


def take(adapter: Any, said: Said, contracted: Said, domain: Any = None) -> None:
    """Give an adapter the `conventions`, `contract` and `domain` that its implementation says. Raises ValueError for nonsense."""
    adapter.conventions = Conventions(**read_conventions(said))
    adapter.contract = read_contract(contracted)
    adapter.domain = None if domain is None else read_domain(domain, adapter.steps)
    must_make_sense(adapter, adapter.dtypes)


@dataclass(frozen=True)
class Declarations:
    """All that is declared from outside. Raises ValueError for nonsense, in one line."""

    conventions: Mapping[str, str | None] = field(default_factory=dict)
    contract: Mapping[str, Any] | None = None
    domain: Domain | None = None

    @classmethod
    def read(cls, conventions: Said = None, contract: Said = None, like: str | None = None, domain: Said = None) -> "Declarations":
        """From what a command line, a file or a call says."""
        limits = read_domain(domain) if domain else None
        return cls((conventions_of(like) if like else {}) | read_conventions(conventions), read_contract(contract), limits)

    def about(self, adapter: Anything) -> Anything:
        """The implementation, saying of itself what is declared here; another object, so that whoever shares it is not misled."""
        if not self.conventions and self.contract is None and self.domain is None:
            return adapter
        other: Any = copy(adapter)
        if self.conventions:
            own = other.conventions or Conventions()
            other.conventions = replace(own, **self.conventions)
        if self.contract is not None:
            other.contract = self.contract
        if self.domain is not None:
            other.domain = self.domain
        return other


def must_make_sense(adapter: Any, dtypes: Iterable[str]) -> None:
    """Raise ValueError where an implementation's contract means nothing in one of these dtypes."""
    for dtype in dtypes:
        if nonsense := _nonsense(adapter, dtype):
            fitting = [other for other in DTYPES if not _nonsense(adapter, other)]
            elsewhere = (
                f"; in {fitting[0]} it makes sense: declare it for that dtype alone, {fitting[0]}.NAME=VALUE" if fitting else ""
            )
            raise ValueError(f"contract: in {dtype}: {nonsense}{elsewhere}")


def _nonsense(adapter: Any, dtype: str) -> str:
    try:
        declared(adapter, dtype)
    except ValueError as error:
        return str(error)
    return ""
