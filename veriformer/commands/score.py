"""`veriformer score`: how many of the re-created real bugs the properties catch."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from reports import records
from reports.records import encoded
from veriformer import options
from veriformer.commands import score_tests as users_tests
from veriformer.settings import Refused, nearest

Job = tuple[str, tuple[Any, ...]]
SHOWN = {"caught": "green", "missed": "bold red", "flagged": "bold red", "equivalent": "dim", "out of scope": "dim"}


@click.command()
@click.option("--seed", "seeds", type=click.IntRange(0), multiple=True, help="Repeatable. Default: 0, 1, 2, 3 and 4.")
@click.option(
    "--only", multiple=True, metavar="ID", help="An entry of the catalogue; repeatable. Default: all of it, and the bases."
)
@click.option("--examples", type=click.IntRange(1), metavar="N", help="Examples a property. Default: the ci profile's.")
@click.option("--run", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Where to write, or a run to take up again.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write the score there as well.")
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Processes. Default: one for each core.")
@click.option("--tests", multiple=True, metavar="PATH…", help="Score these pytest files, folders or tests in place of our own.")
@click.argument("more_tests", nargs=-1, metavar="[PATH]...")
@click.option("--replaces", metavar="TARGET", help="The kernel that they test: module:attribute, or torch.ops.LIBRARY:NAME.")
@click.option("--as", "as_step", metavar="STEP", help="The step it is, with --tests. Default: the one of its name.")
@click.option("--dtype", metavar="LIST", help="The dtypes it takes, with --tests. Default: as declared, or as probes show.")
@click.option("--maxfail", type=click.IntRange(1), metavar="N", help="With --tests: end the run of a fault after N failing tests.")
@click.option(
    "--time-limit", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="With --tests: of one run of them all."
)
@click.option("--json", "as_json", is_flag=True, help="With --tests: print the record and nothing else.")
@options.asking("conventions", "domain", "like")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    seeds: tuple[int, ...],
    only: tuple[str, ...],
    examples: int | None,
    folder: Path | None,
    out: Path | None,
    jobs: int | None,
    tests: tuple[str, ...],
    more_tests: tuple[str, ...],
    **of_tests: Any,
) -> None:
    """Count which of the re-created bugs and cheats are noticed: by the suite's own properties, or by your tests.

    With --tests your own pytest files are run with each of them in the place of the kernel that --replaces names:

    veriformer score --tests tests/test_attention.py --replaces my_package.kernels:attention

    Exit code: 0 all that can be seen was noticed and nothing correct was flagged, 1 otherwise, 2 usage.
    """
    if tests:
        if seeds:
            raise Refused("--seed: tests draw what they draw; expected none with --tests")
        scored = users_tests.command(
            (*tests, *more_tests), only=only, examples=examples, folder=folder, out=out, jobs=jobs, **of_tests
        )
        ctx.exit(0 if scored.good else 1)
    if more_tests:
        raise Refused(f"no argument {more_tests[0]!r} is expected without --tests")
    if given := [name for name, value in of_tests.items() if value]:
        name = {"as_step": "as", "as_json": "json"}.get(given[0], given[0].replace("_", "-"))
        raise Refused(f"--{name}: goes with --tests, which names the tests to score")
    from properties.evaluation.detection import score as scoring
    from properties.evaluation.detection.catalogue import CATALOGUE
    from properties.evaluation.mutants.mutation_report import mutation_report
    from properties.run import run_folder
    from veriformer import answers, isolated_faults

    known = [fault.id for fault in CATALOGUE]
    for identifier in only:
        if identifier not in known:
            raise Refused(f"--only: no entry {identifier!r}{nearest(identifier, known)}")
    folder = folder or options.new_folder("score-{}")
    folder.mkdir(parents=True, exist_ok=True)
    lines_at = folder / "detection.jsonl"
    _check_taken_up(folder, {"examples": examples, "code": run_folder.code_hash()})

    chosen, tried = list(only or known), seeds or scoring.SEEDS
    planned: list[Job] = [("search_for", (identifier, seed, examples)) for seed in tried for identifier in chosen]
    planned += [("ask_the_usual", (identifier,)) for identifier in chosen]
    if not only:
        planned += [("try_an_honest_one", (name, tried[0], examples)) for name in scoring.bases()]
        planned += [("answers", (when, tried[0])) for when in answers.ASKED]
    lines = _measured(planned, lines_at, jobs)
    further: list[Job] = [("ask_the_named", (identifier, examples)) for identifier in scoring.not_by_name(lines)]
    if not only:
        first = {line["claim"] for line in lines if line["kind"] == "search" and line["caught"]}
        further += [("give_a_chance", (claim, examples)) for claim in sorted(scoring.claims_planned() - first)]
    further += [
        ("isolated", (claim, faults, tried[0], examples)) for claim, faults in isolated_faults.sample(lines, tried[0]).items()
    ]
    found = scoring.score(lines + _measured(further, lines_at, jobs))
    _write(folder / "score.json", found)
    _write(folder / "mutation-report.json", mutation_report(found))
    if out:
        _write(out, found)
    _show(found, Console(highlight=False), folder)
    ctx.exit(0 if scoring.is_good(found) else 1)


def _check_taken_up(folder: Path, made_with: dict[str, Any]) -> None:
    """A run is only taken up by the code that began it: other examples or other properties would be another score."""
    path = folder / "made_with.json"
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != made_with:
        raise Refused(f"--run {folder}: begun by other code or with another --examples; name another folder")
    _write(path, made_with)


def _key(job: Job) -> tuple[str, ...]:
    """What a line says it was measured by."""
    name, arguments = job
    return (name, *(str(argument) for argument in arguments))


def _measured(planned: list[Job], lines_at: Path, jobs: int | None) -> list[dict[str, Any]]:
    """The lines of these measurements: what is not done yet is done, in parallel, and on disk before the next one."""
    from properties.run import run_folder

    done = {tuple(line["job"]) for line in records.finished(lines_at)}
    missing = [job for job in planned if _key(job) not in done]
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("looking for faults", total=len(planned), completed=len(planned) - len(missing))
        for line in _results(missing, jobs):
            run_folder.append(lines_at, line)
            bar.advance(task)
    wanted = {_key(job) for job in planned}
    return [line for line in records.finished(lines_at) if tuple(line["job"]) in wanted]


def _results(missing: list[Job], jobs: int | None) -> Iterator[dict[str, Any]]:
    from properties.run.parallel import in_parallel

    return in_parallel(_one, missing, jobs or -1)


def _one(name: str, arguments: tuple[Any, ...]) -> dict[str, Any]:
    """One measurement, in a process of its own pool."""
    import torch

    from properties.evaluation.detection import score as scoring
    from veriformer import answers, isolated_faults

    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the runs that a measurement starts
    in_runs = {"answers": answers.measured, "isolated": isolated_faults.verified}
    measure: Callable[..., dict[str, Any]] = in_runs.get(name) or getattr(scoring, name)
    return {**measure(*arguments), "job": _key((name, arguments))}


def _write(path: Path, content: dict[str, Any]) -> None:
    from reports.folders import write_whole

    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, encoded(content, indent=1) + "\n")


def _show(found: dict[str, Any], console: Console, folder: Path) -> None:
    table = Table(title="Re-created bugs, by class; the worst entry and the worst seed of each", title_justify="left")
    for heading in ("class", "caught", "assert_close", "2× rule"):
        table.add_column(heading, no_wrap=True)
    for row in found["classes"]:
        if row["entries"] or row["status"] == "out of scope":
            table.add_row(row["class"], f"[{SHOWN[row['status']]}]{row['status']}[/]", *_usual(row))
    console.print(table)
    for row in found["by_seed"]:
        missed = f"; missed: {', '.join(row['missed'])}" if row["missed"] else ""
        console.print(f"seed {row['seed']}: {row['caught']} of {row['of']} entries caught{missed}")
    correct, claims = found["correct"], found["claims"]
    console.print("cheats caught at every seed: {} of {}".format(*found["cheats"]))
    console.print("on normal inputs: assert_close {}, 2× rule {}".format(*_usual(found["usual"])))
    console.print(f"correct variants flagged: {len(correct['flagged'])} of {correct['variants']} ({correct['checks']} checks)")
    for name, messages in correct["flagged"].items():
        console.print(f"  {name}: {'; '.join(messages)}")
    console.print(f"caught, but by none of the claims that must break: {', '.join(found['not_by_name']) or 'none'}")
    console.print(f"claims that never caught anything: {', '.join(claims['never caught anything']) or 'none'}")
    _show_runs(found, console)
    console.print(f"written to {folder}")


def _show_runs(found: dict[str, Any], console: Console) -> None:
    """What was verified as a user's own files are: faults in processes of their own beside ours, and the catalogue of answers."""
    isolated, answers = found["isolated"], found["answers"]
    if isolated["runs"]:
        caught = isolated["faults"] - len(isolated["differ"])
        console.print(f"one fault of each class, in our process: {isolated['faults']} caught; in processes of their own: {caught}")
        console.print(f"their bases flagged there: {len(isolated['flagged'])} of {isolated['faults']}")
    if answers["runs"]:
        times = ", ".join(answers["times"])
        right = answers["candidates"] - len({complaint.partition(": ")[0] for complaint in answers["wrong"]})
        console.print(f"strange answers ({times}): {right} of {answers['candidates']} candidates judged as they deserve")
    for name in (*isolated["differ"], *isolated["flagged"], *answers["wrong"]):
        console.print(Text(f"  {name}"))
    planned, missing, early, run_folder = (isolated[key] + answers[key] for key in ("planned", "missing", "ended_early", "runs"))
    console.print(f"{planned - missing} of {planned} planned checks have a verdict; runs that ended early: {early} of {run_folder}")


def _usual(row: dict[str, Any]) -> list[str]:
    """What the usual checks caught of what they were tried on; nothing where they were not tried."""
    return ["{} of {}".format(*row[rule]) if row[rule][1] else "" for rule in ("assert_close", "twice_the_baseline")]
