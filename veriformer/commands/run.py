"""`veriformer run PLAN --shard i/N`."""

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from reports.records import Exit, exit_code
from veriformer import options, progress, shards
from veriformer.commands.bench import time_limit_option


class Shard(click.ParamType):
    """A part as `2/4`."""

    name = "shard"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Its number and how many there are."""
        number, _, of = str(value).partition("/")
        if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            self.fail(f"expected a part such as 2/4, got {value!r}", param, ctx)
        return int(number), int(of)


@click.command()
@click.argument("plan", type=click.Path(path_type=Path))
@click.option("--shard", type=Shard(), default="1/1", show_default=True, metavar="I/N", help="Which part, of how many.")
@time_limit_option("5m", "How long this part may measure speed.")
@click.option(
    "--run", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Where to write. Default: a new folder in runs/."
)
@click.pass_context
def command(ctx: click.Context, plan: Path, shard: tuple[int, int], time_limit: float, folder: Path | None) -> None:
    """Do one machine's part of PLAN, written by `veriformer plan`, into a run folder; join the folders with `veriformer merge`.

    Exit code: 0 good, 1 a claim broken or a timed output wrong, 2 usage, 5 something planned for this part is missing.
    """
    part = shards.Plan.read(plan).part(*shard)
    run = options.run_folder(folder)
    part.plan.write(run / shards.FILE)
    console = Console(highlight=False)
    code = _verify(part, run, console) if part.claims else _nothing(run)
    if part.workloads:
        both = {code, _bench(part, run, time_limit, console)}
        code = min(both - {Exit.GOOD}, default=Exit.GOOD)  # a broken claim says more than a missing one
    console.print(f"{run}: part {part.number} of {part.of} of plan {part.plan.id}")
    ctx.exit(code)


def _verify(part: shards.Part, run: Path, console: Console) -> int:
    from veriformer.show import Cards, show

    cards = Cards(console)
    results = progress.verify(part.request(run), cards)
    show(results, cards)
    return exit_code(broken=bool(results.broken), missing=bool(results.missing))  # a part may be of nothing but steps not offered


def _nothing(run: Path) -> int:
    """A part without claims: more machines than claims, or a plan that only times."""
    from properties.run import run_folder

    run_folder.create(run, {"planned": [], "environment": run_folder.environment()})
    return Exit.GOOD


def _bench(part: shards.Part, run: Path, time_limit_s: float, console: Console) -> int:
    from bench.analysis.show import exit_code as timed
    from bench.analysis.show import show
    from bench.runner.progress import Bar
    from bench.runner.run import run as measure

    with Bar() as bar:
        summary = measure(run, part.workloads, time_limit_s, progress=bar.show, **part.bench_settings())
    show(summary, console)
    return timed(summary)
