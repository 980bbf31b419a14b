"""A score of a user's tests, from the request to its record. What is finished is on disk: the same request goes on there."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from properties.conventions.declarations import Declarations
from properties.evaluation.detection.fault import Fault
from properties.evaluation.users_tests.stand_ins import StandIn, base_of, correct, crude, faults_of, of_fault, option_of
from properties.evaluation.users_tests.witness import Kernel, witness
from properties.run import run_folder
from properties.run.parallel import in_parallel
from reports import records
from reports.tests_score_records import TestsScore
from veriformer.settings import Refused
from veriformer.users_tests import mark, probes
from veriformer.users_tests.session import Session, opened

FIRST_RUN = 300.0  # seconds that the tests may take with the kernel itself
TIMES, AT_LEAST = 20.0, 60.0  # a run with something in its place may take so many times that, and so many seconds
LINES = "tests.jsonl"
WITNESSES = Path("runs") / "score-tests-witnesses.jsonl"
"""What would have told a fault, for every score of the same kernel here: it does not depend on the tests."""

Line = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """What is to be scored. `only` are ids of faults; `full` runs every test for every fault; `search` looks for witnesses."""

    tests: tuple[str, ...]
    replaces: str
    step: str
    declarations: Declarations = field(default_factory=Declarations)
    dtypes: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    maxfail: int | None = None
    time_limit: float | None = None
    jobs: int = 1
    examples: int | None = None
    folder: Path | None = None
    full: bool = False
    search: bool = True


class Progress:
    """What is told of the work as it goes on: what is being done, how much of it is done, and how much there is."""

    def __init__(self, show: Callable[[str, int, int], None]) -> None:
        self._show, self._what, self._done, self._count = show, "", 0, 0

    def plan(self, what: str, count: int) -> None:
        """So many things are to be done."""
        self._what, self._done, self._count = what, 0, count
        self._show(what, 0, count)

    def one_more(self) -> None:
        """One of them is done."""
        self._done += 1
        self._show(self._what, self._done, self._count)


def scored(request: Request, progress: Progress) -> tuple[TestsScore, Path]:
    """The score and the folder it is in. Raises Refused, in one line, for what cannot be scored."""
    limit = request.time_limit or FIRST_RUN
    progress.plan("collecting", 1)
    with opened(request.tests, request.replaces, request.step, max(limit, AT_LEAST)) as session:
        work = _Work(request, session, progress)
        return work.score(), work.folder


class _Work:
    def __init__(self, request: Request, session: Session, progress: Progress) -> None:
        self.request, self.session, self.progress = request, session, progress
        self.items = session.collected.items
        self.folder = self._folder()
        self.done = {(line["kind"], line["id"]): line for line in records.finished(self.folder / LINES)}
        self.original: Line = {}
        self.returned: Line = {"takes_self": session.collected.takes_self}
        self.signature = self._signature(Kernel(request.step, (), (), probes.said(request.declarations)))
        self.time_limit = request.time_limit or FIRST_RUN

    def _signature(self, kernel: Kernel) -> Line:
        collected = self.session.collected
        return asdict(kernel.signature(collected.parameters)) | {"all_axes": collected.all_axes}

    # ---- on disk ----

    def _folder(self) -> Path:
        """A folder of its own for this request on these files: another one where either has changed."""
        asked, digest = self.request, hashlib.blake2b(digest_size=4)
        said = [asked.tests, asked.replaces, asked.step, repr(asked.declarations), asked.dtypes, asked.only, asked.maxfail]
        said += [asked.time_limit, asked.examples, asked.full, asked.search, self.items, run_folder.code_hash()]
        digest.update(repr(said).encode())
        for file in self.session.collected.files:
            digest.update(file.encode() + b"\0" + Path(file).read_bytes())
        folder = asked.folder or Path("runs") / f"score-tests-{digest.hexdigest()}"
        made_with = folder / "made_with.json"
        if made_with.exists() and json.loads(made_with.read_text(encoding="utf-8")) != {"digest": digest.hexdigest()}:
            raise Refused(f"--run {folder}: begun with other options, tests or code; name another folder")
        folder.mkdir(parents=True, exist_ok=True)
        made_with.write_text(json.dumps({"digest": digest.hexdigest()}), encoding="utf-8")
        return folder

    def _keep(self, line: Line) -> Line:
        run_folder.append(self.folder / LINES, line)
        self.done[line["kind"], line["id"]] = line
        return line

    # ---- the parts ----

    def score(self) -> TestsScore:
        """All of it."""
        first = self._itself("original")
        self.session.import_once(first["seen"]["imported"])
        self.signature |= {"tokens_first": self._tokens_first()}
        self.original = self._itself("again")
        self._must_be_read(self.original)
        kernel = self._kernel()
        self.signature = self._signature(kernel)
        seconds = first["seconds"]
        self.time_limit = self.request.time_limit or max(AT_LEAST, TIMES * seconds)
        faults = [fault for fault in faults_of(kernel.step) if not self.request.only or fault.id in self.request.only]
        offered = [fault for fault in faults if not option_of(fault) or option_of(fault) in kernel.options]
        bases = {base_of(fault) for fault in offered}
        right = [each for each in correct(kernel.step) if not self.request.only or each.base in bases]
        rough = crude(kernel.step)
        self.progress.plan("running the tests", len(right) + len(rough) + len(offered))
        self._run(right, every=True)
        correct_runs = {each.id: self._line(each) for each in right}
        self._must_tell(correct_runs)
        faulty = [of_fault(fault) for fault in offered]
        self._run(rough, every=True)
        self._run(faulty, every=self.request.full)
        runs = {each.id: self._line(each) for each in (*rough, *faulty)}
        quiet = [fault for fault in offered if not mark.noticed(runs[fault.id], correct_runs, fault)]
        return mark.marked(
            replaces=self.request.replaces,
            tests=self.request.tests,
            kernel=kernel,
            faults=faults,
            original=self.original,
            runs=runs,
            bases=correct_runs,
            witnesses=self._witnesses(quiet, kernel) | self._without_the_option(faults, offered),
        )

    def _line(self, stand_in: StandIn) -> Line:
        return self.done[stand_in.kind, stand_in.id]

    def _itself(self, name: str) -> Line:
        """The tests with the kernel itself. Raises Refused where they do not pass, hang, or never call it."""
        if ("kernel itself", name) not in self.done:
            job = self._job(name, None, every=True, seconds=self.time_limit)
            (line,) = [self._named(answer) for answer in self.session.runs([lambda: job], 1)]
            self._must_pass(line)
            self._keep(line | {"kind": "kernel itself", "items": self.items})
        return self.done["kernel itself", name]

    def _tokens_first(self) -> bool:
        """Whether the kernel's Q, K and V are seen to be (b, n, h, d); in a run that ends where that is seen."""
        if self.request.step != "attention":
            return False
        if ("axes", "axes") not in self.done:
            job = self._job("axes", None, every=True, seconds=self.time_limit) | {"kind": "axes"}
            (answer,) = self.session.runs([lambda: job], 1)
            self._keep({"kind": "axes", "id": "axes", "tokens_first": bool((answer["seen"] or {}).get("tokens_first"))})
        return self.done["axes", "axes"]["tokens_first"]

    def _kernel(self) -> Kernel:
        if ("kernel", "kernel") not in self.done:
            self.progress.plan("looking at what the kernel takes", 1)
            about = self.request
            found = probes.kernel(
                about.replaces,
                about.step,
                about.declarations,
                about.dtypes,
                self.session.collected,
                self.original["seen"] | {"tokens_first": self.signature["tokens_first"]},
            )
            self._keep({"kind": "kernel", "id": "kernel", "kernel": found.as_plain()})
        self.returned |= self.original["seen"]["returned"]
        return Kernel.of(self.done["kernel", "kernel"]["kernel"])

    def _run(self, stand_ins: Iterable[StandIn], *, every: bool) -> None:
        """Run the tests with each that has not been run yet; with `every`, all of them whatever fails."""
        missing = [each for each in stand_ins if (each.kind, each.id) not in self.done]
        kinds = {each.id: each.kind for each in missing}
        jobs = [lambda each=each: self._job(each.id, each, every=every, seconds=self.time_limit) for each in missing]
        for answer in self.session.runs(jobs, self.request.jobs):
            self._keep(self._named(answer) | {"kind": kinds[answer["id"]]})
            self.progress.one_more()

    def _job(self, name: str, stand_in: StandIn | None, *, every: bool, seconds: float) -> Line:
        place = {item: index for index, item in enumerate(self.items)}
        known = {
            test for (kind, _), line in self.done.items() if kind in ("crude", "cheat", "fault") for test in mark.failing(line)
        }
        base = self.done.get(("correct", stand_in.base)) if stand_in is not None else None
        return {
            "id": name,
            "kind": "kernel itself" if stand_in is None else stand_in.kind,
            "stand_in": None if stand_in is None else stand_in.as_plain(),
            "signature": self.signature,
            "returned": self.returned,
            "seconds": seconds,
            "all": every,
            "maxfail": None if every else self.request.maxfail,
            "open": [index for item, index in place.items() if item not in known],
            "discounted": [place[test] for test in mark.failing(base)] if base else [],
        }

    def _named(self, answer: Line) -> Line:
        """With tests by their names."""
        names = {name: {self.items[int(index)]: said for index, said in answer[name].items()} for name in ("failed", "skipped")}
        at = None if answer["at"] is None else self.items[answer["at"]]
        return answer | names | {"at": at, "passed": len(answer["passed"])}

    def _witnesses(self, quiet: list[Fault], kernel: Kernel) -> dict[str, Line]:
        """For each fault that no test noticed the input that would have told."""
        if not self.request.search:
            return {fault.id: {"shown": True, "input": "", "dtype": "", "property": ""} for fault in quiet}
        about = hashlib.blake2b(repr((kernel, self.request.examples, run_folder.code_hash())).encode(), digest_size=8).hexdigest()
        known = {line["id"]: line for line in records.finished(WITNESSES) if line["about"] == about}
        missing = [fault.id for fault in quiet if fault.id not in known]
        self.progress.plan("looking for what would have told", len(missing))
        jobs = [(identifier, kernel.as_plain(), self.request.examples) for identifier in missing]
        for line in in_parallel(_witness, jobs, self.request.jobs) if jobs else ():
            WITNESSES.parent.mkdir(parents=True, exist_ok=True)
            known[line["id"]] = line | {"about": about}
            run_folder.append(WITNESSES, known[line["id"]])
            self.progress.one_more()
        return {fault.id: known[fault.id] for fault in quiet}

    def _without_the_option(self, faults: list[Fault], offered: list[Fault]) -> dict[str, Line]:
        return {fault.id: {"why": f"it has no option {option_of(fault)}"} for fault in faults if fault not in offered}

    # ---- what ends it ----

    def _must_pass(self, line: Line) -> None:
        name = self.request.replaces
        if line["ended"] == "out of time":
            raise Refused(
                f"--time-limit: the tests did not end within {self.time_limit:g} s with {name} itself; {line['at']} was running"
            )
        if line["ended"] or line.get("broken"):
            why = f" ({line['broken']})" if line.get("broken") else ""
            raise Refused(f"--tests: with {name} itself the run {line['ended']} in {line['at']}{why}, before any fault")
        if failed := line["failed"]:
            test, said = next(iter(failed.items()))
            when = "itself, before any fault" if line["id"] == "original" else "itself in a second run, having passed in the first"
            raise Refused(f"--tests: {len(failed)} of {len(self.items)} tests fail with {name} {when}: {test}: {said}")
        if not line["seen"]["calls"]:
            raise Refused(
                f"--replaces: nothing was replaced: none of {len(self.items)} tests calls {name}{_skips(line['skipped'])}"
            )

    def _must_be_read(self, line: Line) -> None:
        """Raise Refused where no call says what the step is asked."""
        seen, name, step = line["seen"], self.request.replaces, self.request.step
        if not seen["read"]:
            reason, calls = next(iter(seen["unread"])), sum(seen["calls"].values())
            raise Refused(f"--replaces: none of {calls} calls of {name} can be read as {step}: {reason}")

    def _must_tell(self, correct_runs: dict[str, Line]) -> None:
        """Raise Refused where every test that calls the kernel fails for every correct implementation."""
        calling = {test for test in self.original["seen"]["calls"] if test not in self.original["skipped"]}
        if not correct_runs or not all(calling <= mark.failing(line).keys() for line in correct_runs.values()):
            return
        line = next(iter(correct_runs.values()))
        test, said = next(iter(mark.failing(line).items()))
        raise Refused(
            f"--replaces: every test that calls {self.request.replaces} fails with a correct {self.request.step} in its place: it "
            f"computes something else, or in other conventions (--as, --like, --conventions): {test}: {said}"
        )


def _skips(skipped: dict[str, str]) -> str:
    return f", {len(skipped)} are skipped ({next(iter(skipped.values()))})" if skipped else ""


def _witness(identifier: str, kernel: Line, examples: int | None) -> Line:
    """In a process of the pool."""
    import torch

    torch.set_num_threads(1)
    return witness(identifier, kernel, examples)
