"""`veriformer bench`."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource
from rich.console import Console

from reports.records import encoded
from veriformer import options
from veriformer.settings import Refused

WITHOUT = {  # options that do something else in place of timing: what they do, and what they take beside them
    "only_list": ("measures nothing", ()),
    "self_test": ("times work of its own", ("folder", "as_json")),
    "counters": ("times nothing", ("workloads", "peers", "as_step", "dtype", "device", "threads", "seed", "folder", "as_json")),
}
Command = TypeVar("Command", bound=Callable[..., Any])
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class Duration(click.ParamType):
    """A time as `90s`, `5m` or `1h`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """In seconds."""
        text = str(value)
        try:
            seconds = float(text.rstrip("smh")) * UNITS.get(text[-1:], 1.0)
        except ValueError:
            seconds = -1.0
        if not 0 < seconds < float("inf"):
            self.fail(f"expected a time such as 90s, 5m or 1h, got {value!r}", param, ctx)
        return seconds


def time_limit_option(default: str, text: str) -> Callable[[Command], Command]:
    """The option `--time-limit`; its old name, `--budget`, is answered with the new one."""

    def declare(command: Command) -> Command:
        old = click.option("--budget", hidden=True, expose_value=False, callback=_renamed)
        return click.option("--time-limit", type=Duration(), default=default, show_default=True, help=text)(old(command))

    return declare


def _renamed(_ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise Refused(f"--budget: expected its new name, --time-limit {value} (a budget is an error's)")


def listed(text: str | None) -> tuple[str, ...]:
    """The items of a comma-separated list."""
    return tuple(dict.fromkeys(item.strip() for item in (text or "").split(",") if item.strip()))


@click.command()
@click.option("--baseline", metavar="PEER", help="Whom all others are compared with. Default: torch.eager.")
@click.option("--workloads", default="short", show_default=True, metavar="LIST", help="Names, families or sets (see --list).")
@click.option("--peers", metavar="LIST", help="Peers (see --list), or yours: module:name. Default: all that need no compilation.")
@click.option("--as", "as_step", metavar="STEP", help="The step that a function of yours among the peers computes.")
@click.option("--dtype", default="float32", show_default=True, metavar="LIST", help="Comma-separated.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--threads", metavar="LIST", help="Comma-separated numbers, each a comparison of its own. Default: all cores.")
@time_limit_option("5m", "How long to measure; the first pass may take twice that.")
@click.option("--processes", type=click.IntRange(2), default=5, show_default=True, help="Fresh processes for each group.")
@click.option("--margin", type=float, metavar="SHARE", help="What counts as the same speed. Default: 0.03, on a GPU 0.05.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws inputs and orders.")
@click.option("--suite", is_flag=True, help="Measure also what the suite itself costs, and what a failure.")
@click.option("--counters", is_flag=True, help="Count instructions, operators and bytes in place of timing; one thread.")
@click.option("--run", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Where to write, or an interrupted run.")
@click.option("--list", "only_list", is_flag=True, help="List workloads and peers, and measure nothing.")
@click.option("--self-test", is_flag=True, help="Measure instead how far the timer itself can be trusted here (minutes).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
@click.pass_context
def command(ctx: click.Context, /, *, only_list: bool, self_test: bool, counters: bool, as_json: bool, **asked: Any) -> None:
    """Time every workload on all peers side by side, and say who is faster, by how much, and whether that can be believed.

    A peer whose output is wrong gets no speed. An interrupted run goes on when it is started again with the same --run.
    With --counters one call of each peer is counted instead of timed, which no neighbour on the machine disturbs.
    Exit code: 0 good, 1 an output was wrong or a peer failed, 2 usage, 5 planned cells missing.
    """
    console = Console(highlight=False)
    for mode in WITHOUT:
        if ctx.params[mode]:
            _refuse_others(ctx, mode)
    if only_list:
        from bench.analysis.show import show_choices

        show_choices(console)
    elif self_test:
        from bench.self_test import trials

        into = [] if asked["folder"] is None else ["--into", str(asked["folder"])]
        ctx.exit(trials.main([*into, *["--json"] * as_json]))
    elif counters:
        ctx.exit(_count(console, as_json=as_json, **{name: asked[name] for name in WITHOUT["counters"][1] if name in asked}))
    else:
        ctx.exit(_run(console, as_json=as_json, **asked))


def _refuse_others(ctx: click.Context, mode: str) -> None:
    """Raise Refused for an option that would be given for nothing."""
    does, beside = WITHOUT[mode]
    flags = {str(parameter.name): parameter.opts[0] for parameter in ctx.command.params}
    for name, flag in flags.items():
        if name not in {mode, *beside} and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise Refused(f"{flag}: expected without {flags[mode]}, which {does}")


def _count(console: Console, *, as_json: bool, folder: Path | None, workloads: str, **asked: Any) -> int:
    from bench.analysis.show import show_counters
    from bench.counters.counters import count
    from bench.runner.progress import Bar

    folder = _folder(folder)
    try:
        with Bar(quiet=as_json) as bar:
            lines = count(folder, listed(workloads), progress=bar.show, **_settings(**asked))
    except ValueError as error:
        raise Refused(str(error)) from None
    code = int(any(line.status in {"wrong", "failed"} for line in lines))
    if as_json:
        told = {"exit_code": code, "run": str(folder), "counters": [asdict(line) for line in lines]}
        click.echo(encoded(told, indent=1))
    else:
        show_counters(lines, console)
        console.print(f"{folder}", style="dim")
    return code


def _folder(given: Path | None) -> Path:
    return (given or options.new_folder("{}-bench")).absolute()


def _run(console: Console, *, as_json: bool, folder: Path | None, time_limit: float, workloads: str, **asked: Any) -> int:
    from bench.analysis.show import exit_code, show
    from bench.runner.progress import Bar
    from bench.runner.run import run

    folder = _folder(folder)
    try:
        with Bar(quiet=as_json) as bar:
            settings = _settings(**asked)
            summary = run(folder, listed(workloads), time_limit, progress=bar.show, failures=settings["suite"], **settings)
    except ValueError as error:
        raise Refused(str(error)) from None
    code = exit_code(summary)
    if as_json:
        click.echo(encoded({"exit_code": code, "run": str(folder), **asdict(summary)}, indent=1))
    else:
        show(summary, console)
        console.print(f"{folder}", style="dim")
    return code


def _settings(*, peers: str | None, dtype: str, threads: str | None, **others: Any) -> dict[str, Any]:
    """The options as `bench.runner.run.Settings` has them; what was not given is left to its defaults."""
    settings = {"dtypes": listed(dtype), **others}
    if settings.get("baseline") is None:
        settings.pop("baseline", None)
    if peers:
        settings["peers"] = listed(peers)
    if threads:
        try:
            settings["threads"] = tuple(int(item) for item in listed(threads))
        except ValueError:
            raise Refused(f"--threads: expected numbers such as 1,2, got {threads!r}") from None
    return settings
