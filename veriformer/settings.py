"""Options from the user's pyproject.toml: `[tool.veriformer]` for `verify`, `[tool.veriformer.COMMAND]` for another command."""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click


class Refused(click.ClickException, ValueError):
    """What the user asked for cannot be done as asked: one line on stderr, exit code 2."""

    exit_code = 2


def nearest(token: str, known: Iterable[str]) -> str:
    """`; did you mean …?` where a known token is close, else nothing."""
    by_lower_case = {name.lower(): name for name in known}
    close = get_close_matches(token.lower(), by_lower_case, n=1)
    return f"; did you mean {by_lower_case[close[0]]}?" if close else ""


def defaults(name: str, command: click.Command) -> dict[str, Any]:
    """The defaults pyproject.toml gives the options of `command`, by parameter name. Raises Refused for a key that is none."""
    path, table = _table()
    if name != "verify":
        table = table.get(name, {})
    names = {
        option.removeprefix("--"): parameter.name
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
        if option.startswith("--")
    }
    found = {}
    for key, value in table.items():
        if isinstance(value, dict) and name == "verify" and key not in names:
            continue  # another command's
        if key not in names:
            where = "[tool.veriformer]" if name == "verify" else f"[tool.veriformer.{name}]"
            raise Refused(f"{path}: {where} has no key {key!r}{nearest(key, names)}; expected some of {', '.join(names)}")
        found[str(names[key])] = as_text(value)
    return found


def as_text(value: Any) -> Any:
    """A list or a table as a command line has it: `a,b` and `name=value,outer.name=value`; anything else as it is."""
    if isinstance(value, Mapping):
        return ",".join(f"{name}={each}" for name, each in _leaves(value))
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _leaves(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", each) for inner, each in _leaves(value))
        else:
            yield name, "open" if value is None else "|".join(map(str, value)) if isinstance(value, range | tuple | list) else value


def _table() -> tuple[Path | None, dict[str, Any]]:
    """The nearest pyproject.toml, from the current directory upwards, and what it says to us."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        path = folder / "pyproject.toml"
        if path.is_file():
            try:
                return path, tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("veriformer", {})
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise Refused(f"{path} is not TOML: {error}") from error
    return None, {}
