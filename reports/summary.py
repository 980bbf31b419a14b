"""The verdict in five lines: what is broken, how fast, how it grows, how far to trust it. Page and Markdown agree."""

from dataclasses import dataclass
from typing import Any

from reports import words
from reports.findings import Findings
from reports.outcomes import Tone
from reports.plots import exponent
from reports.records import Exit
from reports.records import exit_code as exit_code_of
from reports.speeds import precedence
from reports.tables import Table
from reports.words import plural

SHOWN = 4  # broken claims named in the summary; the others are counted


@dataclass(frozen=True)
class Point:
    """One line of the verdict."""

    label: str
    text: str
    tone: Tone
    section: str  # the section that shows it


def exit_code(found: Findings) -> Exit:
    """0 good, 1 a claim is broken or a peer wrong, 5 planned checks or cells are missing (a run that verified nothing is one)."""
    missing = len(found.missing) or found.untimed or found.uncounted
    something = found.verified or found.only_timed
    return exit_code_of(broken=bool(found.broken or found.wrong), missing=bool(missing), something=bool(something))


def headline(found: Findings) -> tuple[str, Tone]:
    """The answer in a sentence."""
    broken = found.broken_claims
    if broken:
        return f"{len(broken)} of {plural(len(found.claims), 'claim')} {'is' if len(broken) == 1 else 'are'} broken", "bad"
    if found.wrong:
        return f"{plural(found.wrong, 'timed cell')} gave a wrong result or none", "bad"
    if found.only_timed:
        return f"{'Timed' if len(found.timed) else 'Counted'}, and not verified claim by claim", "warn"
    if not found.verified:
        return "Nothing was verified", "bad"
    if len(found.missing) or found.untimed or found.uncounted:
        return "No claim is broken, but the run is incomplete", "bad"
    return "No claim is broken", "good"


def points(found: Findings) -> list[Point]:
    """Five lines: verdict, broken, speed, growth, trust."""
    return [_verdict(found), _broken(found), _speed(found), _growth(found), _trust(found)]


def _verdict(found: Findings) -> Point:
    planned = int(found.checks["planned"].sum())
    counts = [f"{planned - len(found.missing)} of {plural(planned, 'planned check')} ran"]
    counts += [f"{len(found.missing)} missing"] if len(found.missing) else []
    for cells, missing, what in ((found.timed, found.untimed, "planned timing"), (found.counted, found.uncounted, "planned count")):
        if len(cells):
            absent = int((cells["status"] == "not installed").sum())
            counts.append(f"{len(cells) - missing - absent} of {plural(len(cells), what)} ran")
            counts += [f"{absent} of peers not installed"] if absent else []
    idle = found.never_run
    counts += (
        [f"{plural(len(idle), 'claim')} not run: {', '.join(idle[:SHOWN])}{' …' if len(idle) > SHOWN else ''}"] if idle else []
    )
    word, tone = headline(found)
    return Point("Verdict", f"{word} · {' · '.join(counts)}", tone, "matrix")


def _broken(found: Findings) -> Point:
    if not found.broken:
        text = (
            "nothing, among what ran"
            if found.verified
            else "not asked: veriformer verify"
            if found.only_timed
            else "nothing was verified"
        )
        return Point("Broken", text, "good" if found.verified else "none" if found.only_timed else "bad", "broken")
    named = [f"{entry['claim']} in {entry['implementation']} {entry['dtype']}" for entry in found.broken[:SHOWN]]
    more = len(found.broken) - len(named)
    return Point("Broken", "; ".join(named) + (f"; and {more} more" if more else ""), "bad", "broken")


def _speed(found: Findings) -> Point:
    if found.by_peer.empty and found.beside_the_best.empty:
        return Point("Speed", "not measured: veriformer bench", "none", "bench")
    told = [_beside_the_best(found.beside_the_best)] if len(found.beside_the_best) else []
    told += [_against(row) for row in found.by_peer.head(SHOWN).to_dict("records")]
    told += [f"{plural(len(found.by_peer) - SHOWN, 'more peer')} below"] if len(found.by_peer) > SHOWN else []
    told += [f"{plural(found.wrong, 'timed cell')} wrong or failed, without a speed"] if found.wrong else []
    return Point("Speed", "; ".join(told), "bad" if found.wrong else "none", "bench")


def _beside_the_best(table: Table) -> str:
    """What the fastest of the others takes: "the fastest other peer takes 1.3× the time of optimized (…)"."""
    ratios, names = table["ratio"], " or ".join(table["peer"].unique())
    over = f"median of {len(ratios)} workloads" if len(ratios) > 1 else "1 workload"
    reach = f"{words.factor(ratios.min())}–{words.factor(ratios.max())}×"
    return f"the fastest other peer takes {words.factor(ratios.median())}× the time of {names} ({over}; {reach})"


def _against(row: dict[str, Any]) -> str:
    """A peer beside its baseline: "jax: 1.49× torch.eager's time (median of 17 workloads; 0.39–5.37×)"."""
    over = f"median of {row['workloads']} workloads" if row["workloads"] > 1 else "1 workload"
    reach = f"{words.factor(row['least'])}–{words.factor(row['most'])}×"
    return f"{row['peer']}: {words.factor(row['median_ratio'])}× {row['baseline']}'s time ({over}; {reach})"


def _growth(found: Findings) -> Point:
    fitted: list[dict[str, Any]] = [row for row in found.growth.to_dict("records") if not words.absent(row["exponent"])]
    if not fitted:
        text = "not measured: veriformer bench" if found.growth.empty else "too few lengths for an exponent"
        return Point("Growth", text, "none", "growth")
    quickest = [row for row in fitted if row["quantity"] == "time"] or fitted
    families: dict[str, list[str]] = {}
    for row in sorted(quickest, key=lambda row: precedence(row["peer"])):
        name = f"{row['family']}, {row['quantity']} in {row['dtype']}"
        families.setdefault(name, []).append(f"{row['peer']} {exponent(row)}")
    told = [f"{name}: {', '.join(peers[:SHOWN])}" for name, peers in list(families.items())[:SHOWN]]
    return Point("Growth", "; ".join(told), "none", "growth")


def _trust(found: Findings) -> Point:
    notes = [f"{plural(len(found.run.notes), 'note')} on the run folder"] if found.run.notes else []
    compared = found.checks["compared"].sum()
    notes.append(f"{words.rate(float(compared), '').strip()} numbers compared" if compared else "no numbers compared")
    if found.trust is None:
        return Point("Trust", " · ".join(["no timings to trust or not", *notes]), "none", "trust")
    doubted = int((found.ratios["verdict"] == "untrusted").sum())
    believed = bool(found.trust["trusted"]) and not doubted
    word = "timings trusted" if believed else f"{doubted} of {plural(len(found.ratios), 'comparison')} not trusted"
    notes = [*([str(found.trust["message"])] if found.trust["message"] else []), *notes]
    floor = f"noise floor ±{words.percent(found.trust['noise_floor'])}"
    pressure = f"CPU pressure (PSI) {words.percent(found.trust['pressure'])}"
    return Point("Trust", " · ".join([word, floor, pressure, *notes]), "none" if believed else "warn", "trust")
