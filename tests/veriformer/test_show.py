"""What a person sees of a run: the broken claims first, one card for what one fault explains, then who passes what."""

import io

from rich.console import Console

from properties.run import run_folder
from veriformer.results import Results
from veriformer.show import Cards, show


def shown(tmp_path, *lines: dict, **manifest: object) -> str:
    """The text for a run of these verdicts."""
    plain = {
        "kind": "verdict",
        "property": "p",
        "implementation": "mine",
        "dtype": "float32",
        "device": "cpu",
        "seed": 3,
        "isolated": True,
    }
    lines = [plain | {"property": f"p{i}"} | line for i, line in enumerate(lines)]
    keys = ("claim", "property", "implementation", "dtype", "device")
    run_folder.create(tmp_path / "run", {"planned": [{key: line[key] for key in keys} for line in lines]} | manifest)
    for line in lines:
        run_folder.append(tmp_path / "run" / "verify.jsonl", line)
    output = io.StringIO()
    show(Results.of(tmp_path / "run"), Cards(Console(file=output, width=120, highlight=False)))
    return output.getvalue()


def test_a_broken_claim_comes_first_with_its_smallest_input(tmp_path):
    """Claim, message, the shorter of two counterexamples, how to see it again; the table after it."""
    text = shown(
        tmp_path,
        {"claim": "A5", "verdict": "PASS", "generated": 20, "budget_used": 0.5},
        {"claim": "A9", "verdict": "FAIL", "message": "off by 3", "counterexample": "x = [0, 0, 0, 0]"},
        {"claim": "A9", "verdict": "FAIL", "message": "off by 2", "counterexample": "x = [0]"},
        {"claim": "PE1", "verdict": "UNSUPPORTED"},
    )

    assert text.index("A9  FAIL  mine") < text.index("worst error / budget")
    assert "off by 2" in text
    assert "x = [0]" in text
    assert "x = [0, 0, 0, 0]" not in text
    assert "--claims A9 --dtype float32 --seed 3" in text
    assert "UNSUPPORTED, since it offers no step they need: PE1" in text
    assert "1 PASS, 2 FAIL, 1 UNSUPPORTED" in text


def test_an_implementation_that_always_crashes_has_one_card(tmp_path):
    """One card for all claims that a crash in the same place explains."""
    crash = {"verdict": "CRASH", "message": "mine exited with code 0", "counterexample": "n=1"}
    text = shown(tmp_path, {"claim": "A5", **crash}, {"claim": "A9", **crash})

    assert "A5 A9  CRASH" in text
    assert text.count("mine exited with code 0") == 1


def test_a_claim_that_is_only_partly_offered_says_so(tmp_path):
    """PASS 1/2 is not PASS."""
    text = shown(tmp_path, {"claim": "A5", "verdict": "PASS"}, {"claim": "A5", "verdict": "UNSUPPORTED"})

    assert "PASS 1/2" in text


def test_many_columns_become_rows(tmp_path):
    """With more implementations and dtypes than fit side by side, each is a row of counts."""
    lines = [{"claim": "A5", "verdict": "PASS", "implementation": f"peer{i}", "generated": i} for i in range(8)]
    text = shown(tmp_path, *lines)

    for i in range(8):
        assert any(line.split()[:3] == [f"peer{i}", "float32", "1"] for line in text.splitlines())


def test_text_from_outside_is_never_markup(tmp_path):
    """Brackets in a name or a message are printed as they are."""
    text = shown(
        tmp_path, {"claim": "A5", "verdict": "ERROR", "implementation": "mine[red]", "message": "[bold]no[/bold] [/nonsense]"}
    )

    assert "mine[red]" in text
    assert "[bold]no[/bold] [/nonsense]" in text


def test_a_card_says_what_is_wrong_then_the_claim_the_input_and_how_to_replay_it(tmp_path):
    """In this order; the command keeps the options of the run, and what the sentence says is not said again."""
    text = shown(
        tmp_path,
        {
            "claim": "A9",
            "verdict": "FAIL",
            "implementation": "kernels:flash",
            "message": "softmax at (2,): expected 0.25, got nan, which rounding in float32 does not turn into one another",
            "counterexample": "softmax:\n    x = [0.0, 0.0]\nexpected 0.5, got nan at (0,)\nveriformer repro flash-1",
            "generated": 20,
        },
        command=["--as=softmax", "--quiet"],
    )

    parts = [
        "softmax returned NaN where 0.5 is expected, at [0]",
        "claim   Only differences of scores matter.",
        "input   softmax:",
        "expected 0.5, got nan at (0,)",
        "check   p0, 20 examples: softmax at (2,)",
        "replay  veriformer repro flash-1",
        "veriformer verify kernels:flash --claims A9 --dtype float32 --seed 3 --as softmax",
    ]
    assert [text.index(part) for part in parts] == sorted(text.index(part) for part in parts)


def test_tables_have_a_legend(tmp_path):
    """What a cell counts, what a partial PASS and a dot mean, and what is within rounding; SUSPECT where there is one."""
    lines = [{"claim": "A5", "verdict": "PASS"}, {"claim": "A5", "verdict": "UNSUPPORTED"}]
    other = {"claim": "A9", "verdict": "SUSPECT", "suspects": ["softmax: 6.5 σ"], "dtype": "float64"}

    narrow = " ".join(shown(tmp_path / "narrow", *lines, other).split())
    wide = shown(tmp_path / "wide", *[{"claim": "A5", "verdict": "PASS", "implementation": f"peer{i}"} for i in range(8)])

    assert "PASS 1/2: 1 of 2 properties hold" in narrow
    assert "·: not planned. error / budget ≤ 1 is within rounding." in narrow
    assert "SUSPECT: 6–8 σ after 256 resamples: reported, exit 0" in narrow
    assert "Each cell counts claims; a claim takes its worst property's verdict. error / budget ≤ 1 is within rounding." in wide
    assert "Green holds" not in wide


def test_colours_have_a_legend_where_there_are_any(tmp_path):
    """On a terminal that shows them."""
    run_folder.create(tmp_path / "run", {"planned": []})
    run_folder.append(
        tmp_path / "run" / "verify.jsonl",
        {"kind": "verdict", "claim": "A5", "property": "p", "implementation": "mine", "dtype": "float32", "device": "cpu"}
        | {"seed": 3, "isolated": True, "verdict": "PASS"},
    )
    output = io.StringIO()

    show(Results.of(tmp_path / "run"), Cards(Console(file=output, width=200, force_terminal=True, color_system="standard")))

    assert "Green holds; yellow is reported, exit 0; red is broken, exit 1; dim: not offered." in output.getvalue()
