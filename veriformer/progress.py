"""A verification under way: a card for each failure as it is found, and a bar of verdicts fallen out of verdicts planned."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from bench.runner.progress import Bar
from reports.records import follows, verdict_record
from veriformer import engine
from veriformer.results import Results
from veriformer.settings import Refused

if TYPE_CHECKING:
    from veriformer.show import Cards


class Watch:
    """What a run has written so far, read as it grows and never twice."""

    def __init__(self, folder: Path, bar: Bar, cards: "Cards | None" = None) -> None:
        self.folder, self.bar, self.cards = folder, bar, cards
        self.planned = self.all_claims = self.done = self.broken = self.read = 0
        self.begun = False
        self.claims: set[str] = set()

    def look(self) -> None:
        """Tell the bar what is new."""
        manifest, verdicts = self.folder / "manifest.json", self.folder / "verify.jsonl"
        if not self.begun and manifest.exists():
            self._begin(json.loads(manifest.read_text(encoding="utf-8")))
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

    def _begin(self, manifest: dict[str, Any]) -> None:
        """What is planned, and then what the implementations follow: found out before anything else is asked."""
        self.planned, self.all_claims = len(manifest["planned"]), len({check["claim"] for check in manifest["planned"]})
        self.begun = "follows" in manifest
        if self.begun and self.cards is not None:
            self.cards.command = list(manifest.get("command") or [])
            with self.bar.aside():
                self.cards.introduce([follows(each) for each in manifest["follows"]])

    def _take(self, new: bytes) -> None:
        whole, newline, _ = new.rpartition(b"\n")
        self.read += len(whole) + len(newline)
        for line in map(json.loads, whole.splitlines()):
            finding = verdict_record(line)
            self.done += 1
            self.claims.add(finding.claim)
            self.broken += finding.broken
            if self.cards is not None and self.cards.wants(finding):
                with self.bar.aside():
                    self.cards.show([finding])


def verify(request: engine.Request, cards: "Cards | None" = None) -> Results:
    """Run the request with a progress bar on stderr, and cards of what is broken; without cards quietly.

    Raises Refused where pytest refuses it.
    """
    with Bar(quiet=cards is None) as bar:
        ended = engine.run(request, Watch(request.run, bar, cards).look)
    if ended.refusal:
        raise Refused(ended.refusal)
    results = Results.of(request.run)
    if not results.planned or (results.missing and not results.stopped):
        Console(stderr=True).print(ended.tail, markup=False, highlight=False)
    return results
