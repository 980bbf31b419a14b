"""`veriformer plan TARGETS… -o FILE`."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from reports.words import plural
from veriformer import engine, options, shards
from veriformer.commands.bench import listed
from veriformer.run_options import BY_FIELD
from veriformer.settings import Refused


@click.command()
@click.argument("targets", nargs=-1)
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="A new file for the plan.")
@options.asking(*(name for name in BY_FIELD if name not in ("maxfail", "max_time")), seed=0)
@click.option("--quick", is_flag=True, help="A third of the examples.")
@click.option("--workloads", metavar="LIST", help="What is to be timed (`veriformer bench --list`). Default: nothing.")
def command(targets: tuple[str, ...], out: Path, workloads: str | None, **asked: Any) -> None:
    """Write down all that is to be verified and timed, for `veriformer run --shard` on several machines.

    TARGETS are as in `veriformer verify`; none means all that is built in. No check is run.
    """
    from properties.implementations.registry import BUILT_IN

    if out.exists():
        raise Refused(f"-o {out}: expected a new file, found one; nothing is overwritten")
    names = targets or tuple(BUILT_IN)
    request = replace(options.request(target=names[0], folder=out, **asked), targets=names)  # a plan has no run's folder
    for name in targets:  # what is named must do all that is asked; of what is built in each does what it can
        about = (name, request.step, request.arrays, request.device, request.max_time)
        with options.opened(*about, backward=request.backward) as adapter:
            options.declared_of(adapter, options.known_dtypes(request.dtypes), options.declarations(**request.declared))
    plan = shards.made(request, *_bench(workloads, request))
    plan.write(out)
    timed = f", {plural(len(plan.bench_planned), 'timing')}" if plan.bench_planned else ""
    click.echo(f"{out}: {plural(len(plan.planned), 'check')}{timed}; next, on machine 1 of N: veriformer run {out} --shard 1/N")


def _bench(workloads: str | None, request: engine.Request) -> tuple[dict[str, Any] | None, list[str]]:
    if not workloads:
        return None, []
    from bench.runner.run import Settings

    try:
        settings = Settings(
            workloads=listed(workloads), device=request.device, seed=request.seed or 0, dtypes=request.dtypes or ("float32",)
        )
        groups = settings.groups()
    except ValueError as error:
        raise Refused(str(error)) from None
    return asdict(settings), [group.cell(peer) for group in groups for peer in group.peers]
