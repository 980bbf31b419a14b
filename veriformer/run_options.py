"""The options of a run of the properties, each spelt once: what a command line, a request, pytest and a plan hold is one record.

Imports the standard library alone, for the pytest plugin is loaded in every pytest run.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Literal, NamedTuple, Self

Kind = Literal["text", "list", "choice", "flag", "count", "seed", "seconds"]


def items(value: str | Iterable[str]) -> tuple[str, ...]:
    """Those of a list, or of a text with commas, each once."""
    found = value.split(",") if isinstance(value, str) else value
    return tuple(dict.fromkeys(item.strip() for item in found if item.strip()))


def _whole(value: Any, least: int) -> int | None:
    return number if (number := int(str(value))) >= least else None


def _seconds(value: Any) -> float | None:
    return number if (number := float(value)) > 0 else None


KINDS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "text": ("a text", str),
    "list": ("a list", items),
    "flag": ("true or false", bool),
    "count": ("a whole number of at least 1", partial(_whole, least=1)),
    "seed": ("a whole number of at least 0", partial(_whole, least=0)),
    "seconds": ("a number of seconds above 0", _seconds),
}
"""What an option of each kind is, and how it is read: None for what is out of range."""


class RunOption(NamedTuple):
    """One option: the field of `RunOptions` that holds it, what it is if nothing is said, `--name`, and what may be said."""

    field: str
    default: Any
    name: str
    text: str
    metavar: str | None
    kind: Kind
    choices: tuple[str, ...]
    pytests_own: bool

    def read(self, value: Any) -> Any:
        """`value`, of a command line, a file or a call, as what it is. Raises ValueError, in one line."""
        expected, read = (f"one of {', '.join(self.choices)}", str) if self.choices else KINDS[self.kind]
        try:
            found = read(value)
        except (TypeError, ValueError):
            found = None
        if found is None or (self.choices and found not in self.choices):
            raise ValueError(f"--{self.name}: expected {expected}, got {value}")
        return found

    def said(self, value: Any) -> list[str]:
        """The arguments of a command line that say `value`; none for what says nothing."""
        if value is None or value is False or value in ("", ()):
            return []
        if value is True:
            return [f"--{self.name}"]
        return [f"--{self.name}={','.join(value) if isinstance(value, tuple) else value}"]


def _option(
    name: str,
    text: str,
    metavar: str | None = None,
    kind: Kind = "text",
    *,
    default: Any = None,
    choices: tuple[str, ...] = (),
    pytests_own: bool = False,
) -> Any:
    about = {"name": name, "text": text, "metavar": metavar, "kind": kind, "choices": choices, "pytests_own": pytests_own}
    return field(default=default, metadata=about)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run verifies its targets."""

    step: str | None = _option("as", "The step a callable is to be used as (`veriformer list steps`).", "STEP")
    arrays: str | None = _option(
        "arrays",
        "What TARGET takes and returns. Default: what it says, else torch.",
        "[torch|numpy]",
        "choice",
        choices=("torch", "numpy"),
    )
    dtypes: tuple[str, ...] = _option("dtype", "Comma-separated. Default: all that TARGET supports.", "LIST", "list", default=())
    device: str = _option("device", "cpu, cuda or cuda:N.", "DEVICE", default="cpu")
    claims: tuple[str, ...] = _option("claims", "Comma-separated claim ids. Default: all.", "LIST", "list", default=())
    backward: bool = _option(
        "backward", "Gradients too: by autograd, of what TARGET offers forward alone.", kind="flag", default=False
    )
    conventions: str | None = _option(
        "conventions", "What TARGET does where there is a choice: NAME=CHOICE,… (`veriformer list conventions`).", "LIST"
    )
    contract: str | None = _option(
        "contract", "How TARGET computes: mode=fused,split_k=2, or bfloat16.split_k=2 for one dtype.", "LIST"
    )
    domain: str | None = _option(
        "domain", "Which arguments TARGET takes: d_k=16|32|64,d_v=d_k,n=multiple of 128,m=n,mask=none.", "LIST"
    )
    like: str | None = _option(
        "like", "Whose conventions TARGET follows: torch, onnx, jax, flash-attn, … (`veriformer list libraries`).", "LIBRARY"
    )
    examples: int | None = _option("examples", "Examples a property. Default: what the profile says.", "N", "count")
    seed: int | None = _option("seed", "Draws the examples: one seed, one run.", "N", "seed")
    maxfail: int | None = _option("maxfail", "Run nothing more once so many checks are broken.", "N", "count", pytests_own=True)
    max_time: float = _option("max-time", "Seconds a call may take.", "SECONDS", "seconds", default=10.0)

    @classmethod
    def read(cls, said: Mapping[str, Any], **others: Any) -> Self:
        """From what is said, by field; None says nothing. `others` are those of a class with more fields. Raises ValueError."""
        return cls(**{name: BY_FIELD[name].read(value) for name, value in said.items() if value is not None}, **others)

    def said(self) -> list[str]:
        """As arguments of a command line."""
        return [argument for option in BY_FIELD.values() for argument in option.said(getattr(self, option.field))]

    @property
    def declared(self) -> dict[str, str | None]:
        """Those that declare something of an implementation."""
        return {name: getattr(self, name) for name in DECLARED}


DECLARED = ("conventions", "contract", "like", "domain")
BY_FIELD = {each.name: RunOption(each.name, each.default, **each.metadata) for each in fields(RunOptions)}
