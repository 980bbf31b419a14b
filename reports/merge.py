"""Several run folders made into one: the shards of one plan, or runs of the same code on several machines. Overwrites nothing."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from reports import records
from reports.folders import Line, ReportError, Run, difference, machine, write_whole
from reports.records import NOT_OFFERED, SCHEMA, Check, Verdict, VerdictRecord, encoded, plain

COUNTEREXAMPLES = "counterexamples"
OF_A_RUN: dict[str, Callable[[Line], Any]] = {  # lines every run has for itself, and which of two counts (the least)
    "trust": lambda line: (bool(line["trusted"]), -(line["noise_floor"] or 0.0)),  # the less trusted
    "roof": lambda line: -line["rate"],  # a limit is the best ever seen
    "cost": lambda line: line["seconds"],
}


def merged(runs: Sequence[Run]) -> Run:
    """One run that holds what all of `runs` hold; raises ReportError where they are of different code or contradict each other."""
    if not runs:
        raise ReportError("expected at least one run folder, got none")
    first, *others = runs
    for other in others:
        if other.code != first.code:
            raise ReportError(
                f"{first.path} and {other.path} are runs of different code ({first.code} and {other.code}); "
                f"to set one against the other: veriformer compare {first.path} {other.path}"
            )
    plans = [run.extras["plan"] for run in runs if "plan" in run.extras]
    if not others and not plans:
        return first
    planned = dict.fromkeys(check for run in runs for check in run.planned)
    follows = _union([plain(run.follows) for run in runs])
    planned |= dict.fromkeys(records.check(each) for plan in plans for each in plan["planned"])
    manifest = {
        **first.manifest,
        "schema": SCHEMA,
        "id": "+".join(run.id for run in runs),
        "environments": [environment for run in runs for environment in run.environments],
        "claims": _union([run.manifest["claims"] for run in runs]),
        "planned": [plain(check) for check in planned],
        "follows": follows,
        "bench_planned": _union(
            [run.manifest.get("bench_planned") or [] for run in runs] + [plan["bench_planned"] for plan in plans]
        ),
        "counters_planned": _union([run.manifest.get("counters_planned") or [] for run in runs]),
    }
    return Run(
        path=first.path,
        manifest=manifest,
        planned=list(planned),
        follows=[records.follows(each) for each in follows],
        verdicts=_verdicts(runs),
        bench=_bench(runs),
        extras=_extras(runs),
        notes=[f"{run.id}: {note}" for run in runs for note in run.notes],
    )


def offered(run: Run) -> Run:
    """The run without the checks of what an implementation does not offer, and without the claims that then nobody is asked."""
    left_out = {each.check for each in run.verdicts if each.verdict is Verdict.UNSUPPORTED and NOT_OFFERED in each.message}
    planned = [check for check in run.planned if check not in left_out]
    asked = {check.claim for check in planned}
    manifest = {
        **run.manifest,
        "claims": [claim for claim in run.manifest["claims"] if claim["id"] in asked],
        "planned": [plain(check) for check in planned],
    }
    verdicts = [each for each in run.verdicts if each.check not in left_out]
    return replace(run, manifest=manifest, planned=planned, verdicts=verdicts)


def refuse_if_in_use(folder: Path, option: str = "-o") -> None:
    """Raise ReportError for a folder that holds anything, or a file: nothing is overwritten."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ReportError(f"{option} {folder}: expected a new or empty folder, found one in use; nothing is overwritten")


def write(run: Run, folder: Path, parts: Sequence[Run] = ()) -> None:
    """Write `run` as a run folder, with the counterexamples of the runs it was made of.

    Raises ReportError for a folder that holds anything: nothing is overwritten.
    """
    refuse_if_in_use(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, extra in run.extras.items():
        write_whole(folder / f"{name}.json", encoded(extra, indent=1))
    for name, lines in (("verify.jsonl", run.verdicts), ("bench.jsonl", run.bench)):
        if lines:
            write_whole(folder / name, "".join(encoded(line) + "\n" for line in lines))
    for part in parts:
        _keep_counterexamples(part.path / COUNTEREXAMPLES, folder / COUNTEREXAMPLES)
    manifest = {**run.manifest, "id": folder.name}
    write_whole(folder / "manifest.json", encoded(manifest, indent=1))  # last: only now it is a run


def _keep_counterexamples(found: Path, folder: Path) -> None:
    """Copy those whose name no other run has taken: a name is made of the claim, the implementation and the input."""
    for path in sorted(found.glob("*")):
        if not (folder / path.name).exists():
            folder.mkdir(exist_ok=True)
            shutil.copyfile(path, folder / path.name)


def _union(lists: list[list[Any]]) -> list[Any]:
    return list({json.dumps(item, sort_keys=True): item for items in lists for item in items}.values())


def _verdicts(runs: Sequence[Run]) -> list[VerdictRecord]:
    kept: dict[Check, tuple[Run, VerdictRecord]] = {}
    for run in runs:
        for each in run.verdicts:
            before, same = kept.setdefault(each.check, (run, each))
            if same.verdict != each.verdict:
                raise _conflict(before, run, str(each.check), f" ({same.verdict} and {each.verdict})")
    return [line for _, line in kept.values()]


def _bench(runs: Sequence[Run]) -> list[Line]:
    timed = [run for run in runs if run.bench]
    for other in timed[1:]:
        if machine(other) != machine(timed[0]):
            raise ReportError(
                f"{timed[0].path} and {other.path} hold timings of different machines "
                f"({difference(timed[0], other)}); only timings of one machine class make one report"
            )
    kept: dict[tuple[str, str], tuple[Run, Line]] = {}
    for run in timed:
        for line in run.bench:
            name = (line["what"], line["id"])
            before, same = kept.setdefault(name, (run, line))
            if name[0] in OF_A_RUN:
                kept[name] = (run, min(same, line, key=OF_A_RUN[name[0]]))
            elif same != line:
                raise _conflict(before, run, " ".join(name))
    return [line for _, line in kept.values()]


def _conflict(before: Run, run: Run, what: str, how: str = "") -> ReportError:
    return ReportError(f"{before.path} and {run.path} both hold {what} and differ{how}; merge only runs of different cells")


def _extras(runs: Sequence[Run]) -> dict[str, Line]:
    found: dict[str, Line] = {}
    for run in runs:
        for name, extra in run.extras.items():
            if found.setdefault(name, extra) != extra:
                raise ReportError(f"{run.path / name}.json differs from that of another folder; merge only one of them")
    return found
