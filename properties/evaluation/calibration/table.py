"""What a calibration found: counts beside rates, ours beside the usual rules, on the same data."""

import math
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from properties.evaluation.baseline_rules import RULES, RULES_OF_GRADIENTS
from properties.evaluation.calibration.tally import ALARMS_SHOWN, PER_OCTAVE, SEEN, smallest_visible
from properties.implementations.contract import DTYPES

EQUAL_ALARMS = 0.001  # the share of correct checks that every rule may flag when rules are compared at equal false positives

Summary = dict[str, Any]

CORRECT: dict[str, Collection[str]] = {"steps": RULES, "modules": RULES, "backward": RULES_OF_GRADIENTS}
"""What correct results are of, and the rules that they are judged by."""


def summary(lines: Iterable[dict[str, Any]]) -> Summary:
    """Everything by dtype: correct steps, modules and gradients, simulated trials, named faults, the smallest visible faults."""
    lines = list(lines)
    dtypes = [dtype for dtype in DTYPES if any(line["chunk"][2] == dtype for line in lines)]
    return {dtype: _of_dtype([line for line in lines if line["chunk"][2] == dtype]) for dtype in dtypes}


def _of_dtype(lines: list[dict[str, Any]]) -> Summary:
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_kind.setdefault(line["chunk"][0], []).append(line)
    found = {kind: _honest(by_kind[kind], rules) for kind, rules in CORRECT.items() if kind in by_kind}
    if "options" in by_kind:
        found["options"] = _of_options(by_kind["options"])
    if "simulated" in by_kind:
        found["simulated"] = _simulated(by_kind["simulated"])
    if "named" in by_kind:
        found["named"] = _named(by_kind["named"])
    if "graded" in by_kind:
        found["graded"] = _graded(by_kind["graded"], by_kind.get("steps", []) + by_kind.get("modules", []), RULES)
    if "graded backward" in by_kind:
        found["graded backward"] = _graded(by_kind["graded backward"], by_kind.get("backward", []), RULES_OF_GRADIENTS)
    return found


def _honest(lines: list[dict[str, Any]], rules: Collection[str]) -> Summary:
    counts: Counter[str] = Counter()
    variants: Counter[str] = Counter()
    for line in lines:
        counts.update(line["counts"])
        variants.update(line["variants"])
    checks = counts["checks"]
    alarms = {rule: counts[f"alarms of {rule}"] for rule in rules}
    return {
        "cases": counts["cases"],
        "checks": checks,
        "variants": len(variants),
        "suspects": counts["suspects"],
        "false positives": alarms,
        "bound of the rate": bound_of_rate(alarms["ours"], checks),
        "alarms": [alarm for line in lines for alarm in line["alarms"]][:ALARMS_SHOWN],
    }


def _of_options(lines: list[dict[str, Any]]) -> Summary:
    found = _honest(lines, ("ours",))
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update({name.removeprefix("with "): count for name, count in line["counts"].items() if name.startswith("with ")})
    return found | {"false positives": found["false positives"]["ours"], "checks with": dict(sorted(counts.items()))}


def _simulated(lines: list[dict[str, Any]]) -> Summary:
    counts: Counter[str] = Counter()
    largest: dict[str, float] = {}
    for line in lines:
        counts.update(line["counts"])
        largest.update({held_to: max(score, largest.get(held_to, 0.0)) for held_to, score in line["largest"].items()})
    return {
        "cases": counts["cases"],
        "trials": counts["trials"],
        "suspects": counts["suspects"],
        "false positives": counts["alarms"],
        "largest score": largest,
        "bound of the rate": bound_of_rate(counts["alarms"], counts["trials"]),
        "alarms": [alarm for line in lines for alarm in line["alarms"]][:ALARMS_SHOWN],
    }


def bound_of_rate(alarms: int, checks: int) -> float | None:
    """The rate that is excluded with 95 % confidence: 3/N if nothing happened, else the normal bound of a Poisson count."""
    if not checks:
        return None
    return (3.0 if alarms == 0 else alarms + 1.645 * math.sqrt(alarms) + 1.35) / checks


def _named(lines: list[dict[str, Any]]) -> Summary:
    rules = (*RULES, "ours, without probes")
    unseen = {rule: [line["chunk"][1] for line in lines if line["rejected"].get(rule, 0) < SEEN] for rule in rules}
    arithmetic = {rule: sum(line["correct rejected"].get(rule, 0) for line in lines) for rule in RULES}
    return {
        "faults": len(lines),
        "seen": {rule: len(lines) - len(names) for rule, names in unseen.items()},
        "correct results rejected": arithmetic,
        "unseen by ours": unseen["ours"],
    }


def _factors(lines: list[dict[str, Any]], rules: Collection[str]) -> dict[str, float]:
    """By how much each rule has to be relaxed (or may be tightened) for one correct check in a thousand to be flagged."""
    factors = {}
    for rule in rules:
        bins: Counter[int] = Counter()
        for line in lines:
            bins.update(dict(map(tuple, line["histograms"].get(rule, ()))))
        total, above = sum(bins.values()), 0
        for ratio in sorted(bins, reverse=True):
            above += bins[ratio]
            if above > EQUAL_ALARMS * total:
                factors[rule] = 2.0 ** (ratio / PER_OCTAVE)
                break
    return factors


def _factors_of_none(lines: list[dict[str, Any]], graded: list[dict[str, Any]], rules: Collection[str]) -> dict[str, float]:
    """By how much each rule has to be relaxed for no correct check to be flagged, nor a correct result where a fault is looked for.

    1 where none is.
    """
    factors = {}
    for rule in rules:
        of_checks = [2.0 ** ((ratio + 0.5) / PER_OCTAVE) for line in lines for ratio, _ in line["histograms"].get(rule, ())]
        if of_checks:
            of_faults = [line["largest of correct"][rule] for line in graded if "largest of correct" in line]
            factors[rule] = max(1.0, *of_checks, *of_faults)
    return factors


def _graded(lines: list[dict[str, Any]], correct: list[dict[str, Any]], rules: Collection[str]) -> Summary:
    own = {rule: {line["chunk"][1]: line["smallest"][rule] for line in lines} for rule in rules}
    factors, none = _factors(correct, rules), _factors_of_none(correct, lines, rules)

    def relaxed(factors: dict[str, float]) -> dict[str, float]:
        return {
            rule: float(np.mean([smallest_visible(line["margins"][rule], factor) for line in lines]))
            for rule, factor in factors.items()
        }

    return {
        "exponents": own["ours"],
        "mean exponent": {rule: float(np.mean(list(of.values()))) for rule, of in own.items()},
        "mean exponent at equal false positives": relaxed(factors),
        "factors for equal false positives": factors,
        "mean exponent at no false positives": relaxed(none),
        "factors for no false positives": none,
    }


def text(found: Summary) -> str:
    """The summary as lines for a reader."""
    return "\n".join(line for dtype, of in found.items() for line in _lines(dtype, of))


SHOWN = {
    "ours": "within_rounding",
    "assert_close": "torch.testing.assert_close, defaults",
    "2x baseline": "flash-attention, 2× a baseline's error",
    "Liger-Kernel": "Liger-Kernel, softmax and LayerNorm",
    "SOL-ExecBench": "SOL-ExecBench, 1e-2 for 99 %",
}
"""What is compared with the tolerances of published kernel libraries, and how each is called."""


def comparison(found: Summary) -> str:
    """Each rule beside ours: correct results flagged, and the smallest fault seen once it is relaxed until it flags none."""
    return "\n".join(line for dtype, of in found.items() for line in (*_comparison(dtype, of), "")).rstrip()


def _comparison(dtype: str, of: Summary) -> Iterable[str]:
    correct = [of[kind] for kind in ("steps", "modules") if kind in of]
    checks = sum(each["checks"] for each in correct)
    yield f"{dtype:<40} {'flagged of ' + str(checks):>16}  {'relaxed':>9}  {'fault seen':>10}  {'larger':>7}"
    exponents, factors = (of["graded"][f"{what} no false positives"] for what in ("mean exponent at", "factors for"))
    for rule, name in SHOWN.items():
        flagged = sum(each["false positives"][rule] for each in correct)
        relaxed = "as it is" if factors[rule] == 1 else f"{factors[rule]:.3g}×"
        seen = f"2^-{exponents[rule]:.1f}" if exponents[rule] else "none"
        larger = "" if rule == "ours" else f"{2 ** (exponents['ours'] - exponents[rule]):.3g}×" if exponents[rule] else "–"
        yield f"  {name:<38} {flagged:>16}  {relaxed:>9}  {seen:>10}  {larger:>7}".rstrip()


def _lines(dtype: str, of: Summary) -> Iterable[str]:
    yield f"{dtype}"
    for kind in ("steps", "modules"):
        if kind in of:
            yield from _honest_lines(kind, of[kind])
    if "options" in of:
        yield from _option_lines(of["options"])
    if "simulated" in of:
        yield from _simulated_lines(of["simulated"])
    if "named" in of:
        named = of["named"]
        seen = ", ".join(f"{rule} {count}" for rule, count in named["seen"].items())
        yield f"  named faults seen, of {named['faults']}: {seen}"
        yield f"    unseen by ours: {', '.join(named['unseen by ours']) or 'none'}"
        yield f"    correct results rejected on the same inputs: {_counts(named['correct results rejected'])}"
    if "graded" in of:
        yield from _graded_lines(of["graded"])
    if "backward" in of:
        yield from _honest_lines("gradients", of["backward"])
    if "graded backward" in of:
        yield from _graded_lines(of["graded backward"])


def _graded_lines(graded: Summary) -> Iterable[str]:
    for what, key in (
        ("at its own setting", "mean exponent"),
        ("at equal false positives", "mean exponent at equal false positives"),
        ("at no false positives", "mean exponent at no false positives"),
    ):
        if exponents := graded[key]:
            yield f"  smallest visible relative fault {what}: {_exponents(exponents)}"


def _honest_lines(kind: str, of: Summary) -> Iterable[str]:
    checks = of["checks"]
    rates = ", ".join(f"{rule} {count} ({count / max(checks, 1):.2%})" for rule, count in of["false positives"].items())
    counts = f"{checks} distinct results of {of['cases']} cases, {of['variants']} variants, {of['suspects']} suspects"
    yield f"  correct {kind}: {counts}"
    yield f"    false positives: {rates}; ours at most {of['bound of the rate']:.2g} (95 %)"


def _option_lines(of: Summary) -> Iterable[str]:
    counts = f"{of['checks']} distinct results of {of['cases']} cases, {of['variants']} variants, {of['suspects']} suspects"
    yield f"  correct attention with options: {counts}"
    yield f"    with {_counts(of['checks with'])}"
    yield f"    false positives: {of['false positives']}; at most {of['bound of the rate']:.2g} (95 %)"


def _simulated_lines(of: Summary) -> Iterable[str]:
    largest = ", ".join(f"{held_to} {score:.2f}" for held_to, score in of["largest score"].items())
    yield f"  trials of our own simulator: {of['trials']} of {of['cases']} cases of the properties, {of['suspects']} suspects"
    yield f"    false positives: {of['false positives']}; at most {of['bound of the rate']:.2g} (95 %); largest scores: {largest}"


def _counts(of: dict[str, int]) -> str:
    return ", ".join(f"{rule} {count}" for rule, count in of.items())


def _exponents(of: dict[str, float]) -> str:
    """Each rule's, and how much larger than ours; one that sees no fault of any kind has none."""
    ours = of["ours"]

    def shown(rule: str, exponent: float) -> str:
        if not exponent:
            return f"{rule} none"
        return f"{rule} 2^-{exponent:.1f}" + ("" if rule == "ours" else f" ({2 ** (ours - exponent):.3g}x ours)")

    return ", ".join(shown(rule, exponent) for rule, exponent in of.items())
