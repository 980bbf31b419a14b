"""`veriformer score --tests`: from its options to what is printed and written."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.runner.progress import Bar
from reports.records import encoded
from veriformer import options
from veriformer.settings import Refused, nearest

if TYPE_CHECKING:
    from reports.tests_score_records import TestsScore


def command(
    tests: tuple[str, ...],
    *,
    replaces: str | None,
    as_step: str | None,
    dtype: str | None,
    only: tuple[str, ...],
    examples: int | None,
    folder: Path | None,
    out: Path | None,
    jobs: int | None,
    maxfail: int | None,
    time_limit: float | None,
    as_json: bool,
    **declared: str | None,
) -> "TestsScore":
    """Score the tests, print the score, and write it and a page beside its run. Raises Refused for what cannot be scored."""
    from reports.folders import write_whole
    from reports.tests_score import page, summary
    from veriformer.users_tests.scored import Progress, Request, scored

    if not replaces:
        raise Refused("--replaces: expected the kernel that the tests test, module:attribute")
    for path in tests:
        if not Path(path.partition("::")[0]).exists():
            raise Refused(f"--tests: no file or folder {path.partition('::')[0]!r}")
    step = _step(replaces, as_step)
    request = Request(
        tests=tests,
        replaces=replaces,
        step=step,
        declarations=options.declarations(**declared),
        dtypes=options.known_dtypes(dtype),
        only=_known(only, step),
        maxfail=maxfail,
        time_limit=time_limit,
        jobs=jobs or _cores(),
        examples=examples,
        folder=folder,
    )
    with Bar(quiet=as_json) as bar:
        found, folder = scored(request, Progress(bar.show))
    text = encoded(found, indent=1) + "\n"
    for path in (folder / "score.json", *([out] if out else [])):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    again = _again(tests, replaces, as_step)
    write_whole(folder / "report.html", page(found, again))
    write_whole(folder / "summary.md", summary(found, again))
    if as_json:
        click.echo(text, nl=False)
    else:
        from veriformer.show import console
        from veriformer.users_tests.show import shown

        for each in shown(found):
            console().print(each)
        click.echo(f"{folder / 'report.html'}")
    return found


def _again(tests: tuple[str, ...], replaces: str, as_step: str | None) -> str:
    """The command that makes the score again."""
    return shlex.join(["veriformer", "score", "--tests", *tests, "--replaces", replaces, *(["--as", as_step] if as_step else [])])


def _step(replaces: str, as_step: str | None) -> str:
    """The step that the kernel is."""
    from properties.evaluation.users_tests.stand_ins import scored_steps

    place, colon, attribute = replaces.partition(":")
    if not (place and colon and attribute and all(part.isidentifier() for part in attribute.split("."))):
        raise Refused(f"--replaces: expected module:attribute, got {replaces!r}")
    name, known = options.known_step(as_step) or attribute.rpartition(".")[2], scored_steps()
    if name in known:
        return name
    if as_step:
        raise Refused(f"--as: no faults are known of {name} alone; expected one of {', '.join(known)}")
    raise Refused(f"--as: {name!r} is not the name of a step; say which one it is, one of {', '.join(known)}")


def _known(only: tuple[str, ...], step: str) -> tuple[str, ...]:
    from properties.evaluation.users_tests.stand_ins import faults_of

    known = [fault.id for fault in faults_of(step)]
    for identifier in only:
        if identifier not in known:
            raise Refused(f"--only: no fault {identifier!r} of {step}{nearest(identifier, known)}")
    return only


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
