"""What the report says of timings: no speed for a wrong result, nothing untimed unseen, units and legends where they are needed."""

import re

import sample_runs
from sample_runs import everything
from strict_page import report

from reports.findings import Findings
from reports.folders import read
from reports.summary import exit_code


def test_run_of_timings_alone_says_so(tmp_path):
    """It claims no verdict on claims, and is not red for it."""
    folder = sample_runs.write(tmp_path / "run", [], sample_runs.bench())

    page, _ = report(folder, tmp_path / "out")

    assert "Timed, and not verified claim by claim" in page.words()
    assert exit_code(Findings(read(folder))) == 0


def test_wrong_result_has_no_speed(tmp_path):
    """Even where the run's file holds one: the claim that failed stands in its place, in the page, the Markdown and the table."""
    bench = sample_runs.bench()
    for line in bench:
        if line["what"] == "cell" and line["peer"] == "optimized":
            line["gate"] |= {"verdict": "FAIL", "message": "41 × the budget"}
    folder = sample_runs.write(tmp_path / "run", bench=bench)

    page, markdown = report(folder, tmp_path / "out")

    found = Findings(read(folder))
    assert found.timed.loc[found.timed["peer"] == "optimized", ["median_ns", "tokens_per_s", "roof_share"]].isna().all(axis=None)
    assert "optimized" not in set(found.ratios["peer"]) | set(found.growth["peer"])
    assert "A6 broken: no speed" in page.words()
    assert "A6 broken: no speed" in markdown
    assert "gave a wrong result" in page.words()
    assert exit_code(found) == 1


def test_optimized_stands_beside_the_fastest_of_the_others(tmp_path):
    """In its fastest tier, with the others' time over its; the oracle is nobody's rival, and who is wrong is no peer."""
    bench = sample_runs.bench(lengths=(8,))
    cell = next(line for line in bench if line["what"] == "cell")
    times = {"reference": 1.0, "optimized": 30.0, "optimized.tuned": 20.0, "rival": 25.0, "wrong": 2.0}
    cells = [
        {**cell, "id": f"{cell['group']}/{peer}", "peer": peer, "median_ns": ns, "gate": cell["gate"] | {"verdict": gate}}
        for (peer, ns), gate in zip(times.items(), ["PASS"] * 4 + ["FAIL"], strict=True)
    ]
    folder = sample_runs.write(tmp_path / "run", [], cells)

    page, markdown = report(folder, tmp_path / "out")

    (row,) = Findings(read(folder)).beside_the_best.to_dict("records")
    assert (row["peer"], row["best"], row["ratio"]) == ("optimized.tuned", "rival", 1.25)
    assert "the fastest other peer takes 1.25× the time of optimized.tuned (1 workload; 1.25–1.25×)" in page.words()
    assert "| optimized.tuned |" in markdown[markdown.index("Beside the fastest of the others") :]


def test_planned_cell_that_was_not_timed_is_red(tmp_path):
    """It has a row and no speed."""
    folder = sample_runs.write(tmp_path / "run", bench=sample_runs.bench(), bench_planned=["mask n=8/float32/cpu/1t/torch"])

    page, _ = report(folder, tmp_path / "out")

    assert "9 of 10 planned timings ran" in page.words()
    assert "planned, and not measured" in page.words()


def test_peers_that_are_not_installed_are_named_once_and_did_not_run(tmp_path):
    """Not a row for each of their cells, and none of them among the timings that ran."""
    bench = sample_runs.bench()
    gone = [line for line in bench if line["what"] == "cell" and line["peer"] == "optimized"]
    for line in gone:
        line |= {
            "status": "not installed",
            "message": "jax is not installed: the extra `jax` of veriformer brings it",
            "gate": None,
        }
    cells = sum(line["what"] == "cell" for line in bench)

    page, markdown = report(sample_runs.write(tmp_path / "run", bench=bench), tmp_path / "out")

    assert f"{cells - len(gone)} of {cells} planned timings ran · {len(gone)} of peers not installed" in page.words()
    for text in (page.words(), markdown):
        assert text.count("jax is not installed") == 1
        assert f"({len(gone)} cells)" in text


def test_report_against_another_run_shows_what_changed(tmp_path):
    """Changed verdicts and ratios of ratios, with both codes named."""
    before = sample_runs.write(tmp_path / "before", bench=sample_runs.bench())
    lines = sample_runs.checks()
    lines[0] |= {"verdict": "FAIL"}
    after = sample_runs.write(tmp_path / "after", lines, sample_runs.bench(slower=1.2))

    page, markdown = report(after, tmp_path / "out", against=before)

    assert "1 verdict changed" in page.words()
    assert "1.200 [1.183, 1.217] slower" in page.words()
    assert "3 cells slower" in markdown


def bench_of(peers: dict[str, list[float]]) -> list[dict]:
    """Timings of each peer at the first workloads, as many as it has ratios to torch."""
    lines = sample_runs.bench(lengths=(16, 32, 64, 128))
    found = [line for line in lines if line["what"] == "cell" and line["peer"] == "torch"]
    for peer, ratios in peers.items():
        for what in ("cell", "comparison"):
            own = [line for line in lines if line["what"] == what and line["peer"] == "optimized"]
            for line, ratio in zip(own, ratios, strict=False):
                named = {"peer": peer, "id": line["id"].replace("optimized", peer)}
                found.append(line | named | dict.fromkeys(("ratio", "low", "high"), ratio))
    return found


def test_speed_line_names_the_users_and_optimized_first(tmp_path):
    """Then whoever was timed most; each as its baseline's time, with the median and the range over its workloads."""
    peers = {"aaa": [1.0] * 3, "kernels:flash": [0.5], "jax": [0.4, 1.488, 5.37, 1.4], "optimized": [0.9, 1.1], "zzz": [2.0]}

    page, markdown = report(sample_runs.write(tmp_path / "run", bench=bench_of(peers)), tmp_path / "out")

    for text in (page.words(), markdown.replace("\\", "")):
        assert (
            "kernels:flash: 0.50× torch's time (1 workload; 0.50–0.50×); optimized: 1.00× torch's time (median of 2 workloads; "
            "0.90–1.10×); jax: 1.44× torch's time (median of 4 workloads; 0.40–5.37×); aaa: 1.00× torch's time"
        ) in text
        assert "1 more peer below" in text


def test_every_sign_has_its_legend_where_it_stands(tmp_path):
    """Those of the matrix, with what their colours come to; those of timings, with the margin they are held to."""
    page, markdown = report(everything(tmp_path / "run"), tmp_path / "out")

    for wanted in (
        "✗ broken : the implementation contradicts the claim",
        "? did not run : planned, and no verdict is there",
        "Red makes the run fail (exit code 1; 5 where a check did not run)",
        "↓ faster : the whole 95 % interval is more than 3 % below 1",
        "Share of roofline: how much of the limit measured in this run",
        "error / budget ≤ 1 is within rounding",
    ):
        assert wanted in page.words()
    assert "slower : the whole" not in page.words()  # none is
    assert "* faster: the whole 95 % interval is more than 3 % below 1" in markdown
    assert "* ✗ broken: the implementation contradicts the claim" in markdown


def test_untrusted_timings_are_explained(tmp_path):
    """By the A/A control."""
    page, _ = report(sample_runs.write(tmp_path / "run", bench=sample_runs.bench(trusted=False)), tmp_path / "out")

    assert "~ untrusted : rejected by the A/A control" in page.words()


def test_margins_that_differ_are_named_from_the_least_to_the_largest(tmp_path):
    """Where the A/A control is wider, so is the margin."""
    bench = sample_runs.bench()
    next(line for line in bench if line["what"] == "comparison")["margin"] = 0.1

    page, _ = report(sample_runs.write(tmp_path / "run", bench=bench), tmp_path / "out")

    assert "more than 3–10 % below 1" in page.words()


def test_every_head_of_a_column_of_numbers_has_a_unit(tmp_path):
    """In brackets, as a rate, or as the sign of a verdict that is counted."""
    before = sample_runs.write(tmp_path / "before", bench=sample_runs.bench())
    report(everything(tmp_path / "run"), tmp_path / "out", against=before)

    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    heads = [re.sub(r"<[^>]+>", " ", head) for head in re.findall(r'<th scope="col" class="n">(.*?)</th>', text)]
    assert len(heads) > 20
    assert [head for head in heads if not re.search(r"\(.+\)|^[↓=↑≈~] ", head) and head != "Threads"] == []
