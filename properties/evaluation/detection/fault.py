"""How a fault is made: one statement of a base replaced, in a source text that stands alone."""

import ast
import linecache
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from properties.implementations.conventions import OURS, Conventions
from properties.steps import option_name

RIGHT = Path(__file__).parents[1] / "correct"
PACKAGE = "properties.evaluation.correct."


@dataclass(frozen=True)
class Fault:
    """A real bug re-created (or a cheat): where, by which statement, when it shows, and who reported it."""

    id: str
    fault_class: str
    base: str
    """The file of `right` that it happens in, or that uses the file it happens in."""
    steps: tuple[str, ...]
    """What the faulty implementation offers, `step.option` for an option of a step: what it happens in first."""
    right: str
    """The statement as it stands in the base: it occurs there once."""
    wrong: str
    """The statement that takes its place."""
    shows: str
    """When it shows, as far as it ever does."""
    breaks: tuple[str, ...]
    """The claims of which at least one must be found broken."""
    reports: tuple[str, ...] = ()
    """Where it was reported."""
    dtype: str = "float32"
    instead: Mapping[str, str] = field(default_factory=dict)
    """Files of `right` that the base is to use in place of others: a whole model with another attention, say."""
    equivalent: str = ""
    """Why no input can show it, where that is so."""

    def source(self, *, wrong: bool = True) -> str:
        """The text of the implementation, with the wrong statement or the right one; it imports torch alone."""
        text = standalone(self.base, tuple(self.instead.items()))
        if text.count(self.right) != 1:
            raise ValueError(f"{self.id}: expected its right statement once in the base, found it {text.count(self.right)} times")
        return text.replace(self.right, self.wrong) if wrong else text

    def implementation(self, *, wrong: bool = True) -> "Implementation":
        """A new object with nothing remembered from earlier calls."""
        return Implementation(f"{self.id}{'' if wrong else ' (right base)'}", self.source(wrong=wrong), self.steps, self.dtype)


class Implementation:
    """An adapter around a source text: its functions named after steps, in torch."""

    arrays = "torch"

    def __init__(self, name: str, source: str, steps: tuple[str, ...], dtype: str) -> None:
        self.name, self.dtypes = name, (dtype,)
        self.steps = frozenset(step for step in steps if "." not in step)
        self.conventions: Conventions = OURS  # as the projects promised: an answer of another convention is the fault
        self._source = source
        self.file = f"<{name}>"  # as a traceback through its text says
        self._module = executed(self.file, source)
        named = (step.partition(".") for step in steps)
        self.options = frozenset(option_name(step, option) for step, dot, option in named if dot)

    def close(self) -> None:
        """Forget everything: the next call is the first."""
        self._module = executed(self.name, self._source)

    def __getattr__(self, step: str) -> Callable[..., Any]:
        if step.startswith("_") or step not in self.steps:
            raise AttributeError(step)
        return getattr(self._module, step)


def executed(file: str, source: str) -> ModuleType:
    """A module of that text, with nothing remembered."""
    module = ModuleType("faulty")
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)  # so that a traceback shows the statement
    exec(compile(source, file, "exec"), module.__dict__)  # noqa: S102 (our own text)
    return module


@cache
def standalone(base: str, instead: tuple[tuple[str, str], ...] = ()) -> str:
    """The text of a file of `right` with what it imports from its neighbours written out in place of each import, once."""
    written: set[str] = set()
    replaced = dict(instead)

    def text_of(module: str) -> str:
        if module in written:
            return ""
        written.add(module)
        lines = (RIGHT / f"{module}.py").read_text(encoding="utf-8").splitlines()
        for node in reversed(ast.parse("\n".join(lines)).body):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
                lines[node.lineno - 1 : node.end_lineno] = [node]  # type: ignore[list-item]
        return "\n".join(line if isinstance(line, str) else _inlined(line, replaced, text_of) for line in lines)

    return text_of(base) + "\n"


def _inlined(node: ast.ImportFrom, replaced: dict[str, str], text_of: Callable[[str], str]) -> str:
    module = (node.module or "").removeprefix(PACKAGE)
    aliases = [f"{alias.asname} = {alias.name}" for alias in node.names if alias.asname]
    return "\n".join([text_of(replaced.get(module, module)), *aliases])
