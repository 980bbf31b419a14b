"""A verification under way: a bar of verdicts fallen out of verdicts planned."""

import json
from pathlib import Path

from rich.console import Console

from bench.bar import Bar
from reports.records import BROKEN
from veriformer import engine
from veriformer.results import Results
from veriformer.settings import Refused

TAIL = 15  # lines of pytest's own output, where it did not get as far as a verdict


class Watch:
    """What a run has written so far, read as it grows and never twice."""

    def __init__(self, folder: Path, bar: Bar) -> None:
        self.folder, self.bar = folder, bar
        self.planned = self.all_claims = self.done = self.broken = self.read = 0
        self.claims: set[str] = set()

    def look(self) -> None:
        """Tell the bar what is new."""
        manifest, verdicts = self.folder / "manifest.json", self.folder / "verify.jsonl"
        if not self.planned and manifest.exists():
            planned = json.loads(manifest.read_text(encoding="utf-8"))["planned"]
            self.planned, self.all_claims = len(planned), len({check["claim"] for check in planned})
        if verdicts.exists():
            with verdicts.open("rb") as file:
                file.seek(self.read)
                self._take(file.read())
        what = (
            f"{len(self.claims)} of {self.all_claims} claims, {self.broken} checks broken"
            if self.planned
            else "collecting properties"
        )
        self.bar.show(what, self.done, self.planned)

    def _take(self, new: bytes) -> None:
        whole, newline, _ = new.rpartition(b"\n")
        self.read += len(whole) + len(newline)
        for line in map(json.loads, whole.splitlines()):
            self.done += 1
            self.claims.add(line["claim"])
            self.broken += line["verdict"] in BROKEN


def verify(request: engine.Request, *, quiet: bool = False) -> Results:
    """Run the request with a progress bar on stderr. Raises Refused where pytest refuses it."""
    with Bar(quiet=quiet) as bar:
        ended = engine.run(request, Watch(request.run, bar).look)
    if ended.refusal:
        raise Refused(ended.refusal)
    results = Results.of(request.run)
    if not results.planned or results.missing:
        tail = "\n".join(ended.output.splitlines()[-TAIL:])
        Console(stderr=True).print(tail, markup=False, highlight=False)
    return results
