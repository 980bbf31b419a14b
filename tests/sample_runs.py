"""Run folders made up for the reports' tests: small, with something of everything, the same bytes every time."""

import itertools
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reports.records import SCHEMA

CLAIMS = [
    {
        "id": "A5",
        "step": "softmax",
        "kind": "law",
        "statement": "Softmax turns scores into probabilities that sum to 1.",
        "formula": "P ≥ 0, Σ_j P[i, j] = 1",
        "expectation": "holds within the rounding of the dtype",
    },
    {
        "id": "M3",
        "step": "mask",
        "kind": "law",
        "statement": "No future token can influence a token.",
        "formula": "X'[:j] = X[:j] ⇒ out'[:j] = out[:j], bit for bit",
        "expectation": "holds",
    },
    {
        "id": "PE2",
        "step": "positional_encoding",
        "kind": "refuted",
        "statement": "Every value of the encoding lies strictly between −1 and 1.",
        "formula": "−1 < PE[p, j] < 1",
        "expectation": "refuted at position 0: cos 0 = 1. What holds: −1 ≤ PE ≤ 1",
    },
    {
        "id": "G2",
        "step": "generation",
        "kind": "study",
        "statement": "A longer prompt improves predictions.",
        "formula": "–",
        "expectation": "a study with a plot, no verdict",
    },
]
PROPERTIES = {"A5": ["test_rows_sum_to_one", "test_agrees"], "M3": ["test_future_is_hidden"], "PE2": ["test_one_at_position_zero"]}
IMPLEMENTATIONS = ("reference", "optimized", "torch")
DTYPES = ("float64", "float32", "bfloat16")
ENVIRONMENT = {"processor": "Example CPU", "cores": 2, "threads": 1, "device": "cpu", "code": "c0de", "versions": {"torch": "2.13"}}


def check(claim: str, prop: str, implementation: str, dtype: str, **findings: Any) -> dict[str, Any]:
    """One line of verify.jsonl; it passes unless `findings` says otherwise."""
    told = {
        "verdict": "PASS",
        "message": "",
        "counterexample": "",
        "budget_used": 0.31,
        "index": None,
        "expected": None,
        "got": None,
    }
    counts = {"generated": 100, "filtered": 3, "compared": 6400, "undecidable": 0, "suspects": [], "seconds": 0.5}
    named = {"claim": claim, "property": prop, "implementation": implementation, "dtype": dtype, "device": "cpu"}
    return {"schema": SCHEMA, "kind": "verdict", **named, "seed": 0, "isolated": True, **told, **counts, **findings}


def checks(claims: Iterable[dict[str, Any]] = CLAIMS, implementations: Iterable[str] = IMPLEMENTATIONS) -> list[dict[str, Any]]:
    """A passing line for every property of every claim on every implementation and dtype."""
    return [
        check(claim["id"], prop, implementation, dtype, **({"counterexample": "p=0"} if claim["kind"] == "refuted" else {}))
        for claim in claims
        for prop in PROPERTIES.get(claim["id"], [f"test_{claim['id'].lower()}"] if claim["kind"] != "study" else [])
        for implementation in implementations
        for dtype in DTYPES
    ]


def planned(lines: Iterable[dict[str, Any]]) -> list[dict[str, str]]:
    """The plan that `lines` fulfil."""
    return [{name: line[name] for name in ("claim", "property", "implementation", "dtype", "device")} for line in lines]


def write(
    folder: Path,
    lines: list[dict[str, Any]] | None = None,
    bench: list[dict[str, Any]] | None = None,
    **manifest: Any,
) -> Path:
    """A run folder with these lines; planned is what `lines` hold unless `manifest` says otherwise."""
    lines = checks() if lines is None else lines
    folder.mkdir(parents=True, exist_ok=True)
    told = {"schema": SCHEMA, "id": folder.name, "claims": CLAIMS, "planned": planned(lines), "seed": 0, "environment": ENVIRONMENT}
    timed = [line["id"] for line in bench or [] if line["what"] == "cell"]
    (folder / "manifest.json").write_text(json.dumps(told | {"bench_planned": timed} | manifest), encoding="utf-8")
    for name, written in (("verify.jsonl", lines), ("bench.jsonl", bench)):
        if written is not None:
            (folder / name).write_text("".join(json.dumps(line) + "\n" for line in written), encoding="utf-8")
    return folder


# ---- timings ----

PEERS = {"torch": 1.0, "optimized": 0.62, "reference": 7.5}  # times the baseline's
LENGTHS = (64, 256, 1024)


def bench(
    slower: float = 1.0, *, wrong: str = "", trusted: bool = True, lengths: tuple[int, ...] = LENGTHS
) -> list[dict[str, Any]]:
    """A bench.jsonl of attention at a few lengths; `slower` multiplies the time of "optimized", `wrong` names a peer that fails."""
    peers = {peer: factor * (slower if peer == "optimized" else 1) for peer, factor in PEERS.items()}
    found: list[dict[str, Any]] = []
    for n in lengths:
        thing = {
            "workload": f"attention n={n}",
            "step": "attention",
            "dtype": "float32",
            "device": "cpu",
            "threads": 1,
            "sizes": {"n": n},
        }
        group = f"{thing['workload']}/float32/cpu/1t"
        baseline = 1e3 * n + n * n * 3
        found += [_process(thing, group, number, baseline, peers) for number in range(5)]
        found += [_cell(thing, group, peer, baseline * factor, wrong=peer == wrong) for peer, factor in peers.items()]
        found += [
            _comparison(thing, group, peer, factor, trusted=trusted)
            for peer, factor in peers.items()
            if peer not in {"torch", wrong}
        ]
        found.append(
            _line("control", group, group=group, baseline="torch", trusted=trusted, message="" if trusted else "1.2 is not 1")
            | {"ratio": 1.001, "low": 0.996, "high": 1.005, "reach": 0.005, "contains_one": True, "processes": 5, "rounds": 100}
        )
    return [*found, *_growth(peers, lengths), *_machine(trusted=trusted)]


def _line(what: str, identifier: str, **fields: Any) -> dict[str, Any]:
    return {"schema": SCHEMA, "kind": "bench", "what": what, "id": identifier, **fields}


def _process(thing: dict[str, Any], group: str, number: int, baseline: float, peers: dict[str, float]) -> dict[str, Any]:
    timed = []
    for index, (peer, factor) in enumerate(peers.items()):
        samples = [baseline * factor * (1 + 0.02 * math.sin(7 * i + index + number)) for i in range(8)]
        order = [(i + index) % len(peers) for i in range(8)]
        timed.append({"peer": peer, "status": "measured", "samples": samples, "order": order, "at": [0.01 * i for i in range(8)]})
    load = {"load": [1.5, 1.7], "pressure": [0.2, 0.3]}
    told = {"group": group, "process": number, "started": 1.7e9 + 30 * number, "seconds": 3.0, "timed": timed, "load": load}
    return _line("process", f"{group}/#{number}", **thing, **told, seed=0, pools=[], disturbed={}, repeated={}, throttled="")


def _cell(thing: dict[str, Any], group: str, peer: str, ns: float, *, wrong: bool) -> dict[str, Any]:
    n = thing["sizes"]["n"]
    gate = {
        "verdict": "FAIL" if wrong else "PASS",
        "claim": "A6",
        "message": "41 × the budget at (0, 3)" if wrong else "",
        "budget_used": 0.2,
    }
    told = {"status": "wrong" if wrong else "measured", "message": "", "really": f"{peer} eager", "gate": gate, "processes": 5}
    speed = {"median_ns": ns, "low_ns": ns * 0.99, "high_ns": ns * 1.01, "min_ns": ns * 0.98, "first_call_ns": ns * 9}
    work = {"flops": 256.0 * n * n, "bytes": 1024.0 * n, "tokens": n, "peak_bytes": 4.0 * n * n, "rounds": 100}
    rates = {"flops_per_s": 256e9 * n * n / ns, "bytes_per_s": 1024e9 * n / ns, "tokens_per_s": n * 1e9 / ns}
    roof = {"roof_share": 0.4, "roof_bound": "products", "above_roof": False}
    nothing = dict.fromkeys([*speed, *rates, "peak_bytes", "roof_share"]) if wrong else {}
    return _line("cell", f"{group}/{peer}", **thing, group=group, peer=peer, **told, **(work | speed | rates | roof | nothing))


def _comparison(thing: dict[str, Any], group: str, peer: str, ratio: float, *, trusted: bool) -> dict[str, Any]:
    verdict = ("faster" if ratio < 0.97 else "slower" if ratio > 1.03 else "same") if trusted else "untrusted"
    told = {"baseline": "torch", "peer": peer, "verdict": verdict, "message": "", "margin": 0.03, "processes": 5, "rounds": 100}
    found = {"ratio": ratio, "low": ratio * 0.99, "high": ratio * 1.01, "ratio_of_minima": ratio, "minima_disagree": False}
    return _line("comparison", f"{group}/{peer}", **thing, group=group, **told, **found, process_ratios=[ratio] * 5)


def _growth(peers: dict[str, float], lengths: tuple[int, ...]) -> list[dict[str, Any]]:
    lines = []
    for peer, factor in peers.items():
        for quantity, values in (
            ("time", [factor * (1e3 * n + 3 * n * n) for n in lengths]),
            ("memory", [4.0 * n * n for n in lengths]),
        ):
            pairs = itertools.pairwise(lengths)
            local = [{"first": a, "last": b, "exponent": 1.6, "low": None, "high": None, "residual": None} for a, b in pairs]
            fitted = {"first": lengths[0], "last": lengths[-1], "exponent": 1.8, "low": 1.75, "high": 1.85, "residual": 0.02}
            named = {"family": "attention", "step": "attention", "peer": peer, "dtype": "float32", "device": "cpu", "threads": 1}
            grown = {
                "quantity": quantity,
                "axis": "n",
                "lengths": list(lengths),
                "values": values,
                "local": local,
                "fitted": fitted,
            }
            lines.append(_line("growth", f"growth/attention/float32/cpu/1t/{peer}/{quantity}", **named, **grown))
    return lines


def _machine(*, trusted: bool) -> list[dict[str, Any]]:
    index = {"dtype": "float32", "device": "cpu", "threads": 1, "samples": []}
    told = {"trusted": trusted, "message": "" if trusted else "the baseline differs from itself", "noise_floor": 0.005}
    seen = {"controls": 3, "containing_one": 3, "p_value": 1.0, "pressure": 0.25, "load": 1.6, "first": 1.7e9, "last": 1.7e9 + 150}
    return [
        _line("roof", "roof/products/float32/cpu/1t/512", limit="products", size={"m": 512}, rate=9e11, median_rate=8e11, **index),
        _line("roof", "roof/read/float32/cpu/1t/64M", limit="read", size={"bytes": 2**26}, rate=2e10, median_rate=1.8e10, **index),
        _line("trust", "trust", **told, **seen, seconds=150.0),
        _line(
            "cost", "cost/oracle/attention", piece="oracle", name="attention", seconds=2e-4, per_second=5e3, repeats=9, note="n=8"
        ),
    ]


# ---- what other commands write beside a run ----


def score(missed: str = "") -> dict[str, Any]:
    """A score.json of three entries, one of which may be missed at one of two seeds."""
    entries = []
    for identifier, part in (("scale-root-d", "attention"), ("mask-shifted", "mask"), ("cache-stale", "cache")):
        seen = {"caught": True, "claim": "A5", "property": "test_agrees", "verdict": "FAIL", "examples": 7, "seconds": 0.4}
        searches = [{"seed": 0, **seen}, {"seed": 1, **({"caught": False} if identifier == missed else seen)}]
        named = {"id": identifier, "class": identifier, "component": part, "step": part, "dtype": "float32"}
        status = "missed" if identifier == missed else "caught"
        entries.append(
            {**named, "status": status, "searches": searches, "assert_close": part == "mask", "twice_the_baseline": None}
        )
    caught = 2 if missed else 3
    return {
        "schema": 2,
        "seeds": [0, 1],
        "entries": entries,
        "classes": [{"component": each["component"], "class": each["class"], "status": each["status"]} for each in entries],
        "by_seed": [{"seed": 1, "caught": caught, "of": 3, "missed": [missed]}, {"seed": 0, "caught": 3, "of": 3, "missed": []}],
        "usual": {"assert_close": [1, 3], "twice_the_baseline": [0, 0]},
        "correct": {"variants": 4, "checks": 120, "flagged": {}},
        "claims": {"caught first": ["A5"], "caught later": {}, "never caught anything": ["M3"]},
        "out_of_scope": {"paged-cache": "no pages here"},
    }


def calibration() -> dict[str, Any]:
    """A calibration.json of one dtype."""
    correct = {"checks": 30_000, "false positives": {"ours": 0, "assert_close": 1650}}
    named = {"faults": 22, "seen": {"ours": 21, "assert_close": 15}, "unseen by ours": ["head × 1.001"]}
    return {"float32": {"steps": correct, "named": named, "graded": {"mean exponent": {"ours": 19.5, "assert_close": 9.9}}}}


def everything(folder: Path) -> Path:
    """A run with a broken claim, a missing check, timings of which one peer's are wrong, a score and a calibration."""
    lines = checks()
    due = planned(lines)
    lines[3] |= {"verdict": "FAIL", "budget_used": 41.3, "counterexample": "x = [0.]\nc = 16384.", "expected": "1.0", "got": "0.0"}
    lines[6] |= {"verdict": "UNSUPPORTED", "budget_used": None, "compared": 0}
    write(folder, [*lines[:9], *lines[10:]], bench(wrong="reference"), planned=due)
    (folder / "score.json").write_text(json.dumps(score(missed="cache-stale")), encoding="utf-8")
    (folder / "calibration.json").write_text(json.dumps(calibration()), encoding="utf-8")
    return folder
