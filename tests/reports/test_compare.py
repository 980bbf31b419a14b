"""One run against another, and several made into one."""

import pytest
import sample_runs
from click.testing import CliRunner

from reports.compare import compared
from reports.folders import ReportError, read
from reports.merge import merged
from reports.records import verdict_record
from veriformer.commands import compare as compare_command
from veriformer.commands import merge as merge_command
from veriformer.commands import report as report_command


@pytest.fixture
def runs_of(tmp_path):
    """Make a run folder by name: `slower` is by how much "optimized" is, other arguments as in `sample_runs`."""

    def make(name, *, slower=1.0, trusted=True, lines=None, **manifest):
        return sample_runs.write(tmp_path / name, lines, sample_runs.bench(slower, trusted=trusted), **manifest)

    return make


def invoke(command, *arguments):
    """Run a command as the CLI does."""
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_slowdown_counts_only_when_a_second_run_shows_it(runs_of):
    """Exit 0 for one slow run, 3 for two that agree, 0 where the second one does not."""
    before, slow, slow_again, as_before = (
        runs_of(name, slower=factor) for name, factor in [("a", 1.0), ("b", 1.2), ("c", 1.19), ("d", 1.0)]
    )

    assert invoke(compare_command.command, before, slow).exit_code == 0
    assert "a slowdown in one run is no proof" in invoke(compare_command.command, before, slow).output
    assert invoke(compare_command.command, before, slow, slow_again).exit_code == 3
    assert invoke(compare_command.command, before, slow, "--confirm", slow_again).exit_code == 3
    assert invoke(compare_command.command, before, slow, as_before).exit_code == 0


def test_machine_that_is_slower_altogether_is_no_slowdown(runs_of, tmp_path):
    """Everything takes twice as long, the baseline too: the ratio of ratios is 1."""
    twice = [
        line | {name: 2 * line[name] for name in ("median_ns", "low_ns", "high_ns")} if line["what"] == "cell" else line
        for line in sample_runs.bench()
    ]

    change = compared(read(runs_of("a")), read(sample_runs.write(tmp_path / "b", bench=twice)))

    assert set(change.timings["verdict"]) == {"same"}
    assert change.timings["ratio"].tolist() == pytest.approx([1.0] * len(change.timings))


@pytest.mark.parametrize(("factor", "word"), [(1.2, "slower"), (1.04, "unresolved"), (1.0, "same"), (0.8, "faster")])
def test_tokens_for_a_change(runs_of, factor, word):
    """The whole interval decides: above the band, inside it, below it, or across its edge."""
    change = compared(read(runs_of("a")), read(runs_of("b", slower=factor)))

    assert set(change.timings.loc[change.timings["peer"] == "optimized", "verdict"]) == {word}


def test_interval_of_a_ratio_of_ratios_is_wider_than_either(runs_of):
    """Both runs' noise is in it: √2 times one run's, where both are equally noisy."""
    change = compared(read(runs_of("a")), read(runs_of("b")))

    row = change.timings.iloc[0]
    assert row["high"] - row["low"] == pytest.approx(0.02 * 2**0.5, rel=0.01)


def test_runs_on_different_machines_are_refused_unless_told(runs_of):
    """The message names what differs."""
    before, after = runs_of("a"), runs_of("b", environment=sample_runs.ENVIRONMENT | {"cores": 64})

    refused = invoke(compare_command.command, before, after)

    assert refused.exit_code == 2
    assert "cores: 2 and 64" in refused.output
    assert invoke(compare_command.command, before, after, "--across-machines").exit_code == 0


def test_untrusted_timings_give_no_verdict(runs_of):
    """A run that cannot tell the baseline from itself shows no slowdown either."""
    change = compared(read(runs_of("a")), read(runs_of("b", slower=2.0, trusted=False)))

    assert set(change.timings["verdict"]) == {"untrusted"}


def test_claim_that_holds_no_longer_is_exit_1(runs_of):
    """Changed verdicts are listed, a broken one decides the exit code."""
    lines = sample_runs.checks()
    lines[0] |= {"verdict": "FAIL"}

    result = invoke(compare_command.command, runs_of("a"), runs_of("b", lines=lines))

    assert result.exit_code == 1
    assert "1 verdict changed, 1 newly broken" in result.output


def test_what_did_not_run_any_more_is_exit_5(runs_of):
    """A check that was there and is missing now is no pass."""
    lines = sample_runs.checks()

    result = invoke(compare_command.command, runs_of("a"), runs_of("b", lines=lines[1:], planned=sample_runs.planned(lines)))

    assert result.exit_code == 5


def test_confirming_run_must_be_another_one_of_the_same_code(runs_of):
    """The same folder twice, and a run of other code, confirm nothing."""
    before, after = read(runs_of("a")), read(runs_of("b", slower=1.2))
    foreign = read(runs_of("c", slower=1.2, environment=sample_runs.ENVIRONMENT | {"code": "0ther"}))

    with pytest.raises(ReportError, match="cannot confirm itself"):
        compared(before, after, again=after)
    with pytest.raises(ReportError, match="run of other code"):
        compared(before, after, again=foreign)


@pytest.mark.parametrize("margin", ["x", "-1", "nan", "1", "300%"])
def test_margin_must_be_a_share(runs_of, margin):
    """A typo costs one line and exit code 2."""
    result = invoke(compare_command.command, runs_of("a"), runs_of("b"), f"--margin={margin}")

    assert result.exit_code == 2
    assert "expected a share" in result.output


# ---- merge ----


def test_shards_merge_into_the_run_they_are_shards_of(tmp_path):
    """Verdicts of both, the plan of both, nothing missing; the merged folder reads like any other."""
    lines = sample_runs.checks()
    shards = [sample_runs.write(tmp_path / f"s{i}", lines[i::3]) for i in range(3)]

    result = invoke(merge_command.command, *shards, "-o", tmp_path / "all")

    assert result.exit_code == 0, result.output
    whole = read(tmp_path / "all")
    assert {each.check for each in whole.verdicts} == {verdict_record(line).check for line in lines}
    assert len(whole.manifest["planned"]) == len(lines)
    assert len(whole.environments) == 3


def test_merge_keeps_the_counterexamples(tmp_path):
    """What `veriformer repro` replays is in the merged folder as well."""
    lines = sample_runs.checks()
    shards = [sample_runs.write(tmp_path / f"s{i}", lines[i::2]) for i in range(2)]
    for shard, name in zip(shards, ("A2-mine.py", "M1-mine.py"), strict=True):
        (shard / "counterexamples").mkdir()
        (shard / "counterexamples" / name).write_text(name)

    invoke(merge_command.command, *shards, "-o", tmp_path / "all")

    assert {path.name: path.read_text() for path in (tmp_path / "all" / "counterexamples").iterdir()} == {
        "A2-mine.py": "A2-mine.py",
        "M1-mine.py": "M1-mine.py",
    }


@pytest.mark.parametrize(("broken", "code"), [(False, 0), (True, 1)])
def test_rendering_a_run_is_red_where_the_run_was(tmp_path, broken, code):
    """A CI job that only renders what others verified must not turn their finding green."""
    lines = sample_runs.checks()
    lines[0] = {**lines[0], "verdict": "FAIL" if broken else "PASS"}

    result = invoke(report_command.command, sample_runs.write(tmp_path / "run", lines), "-o", tmp_path / "out")

    assert result.exit_code == code, result.output
    assert (tmp_path / "out" / "report.html").exists()


def test_merge_overwrites_nothing(tmp_path):
    """A folder in use stays as it is."""
    run = sample_runs.write(tmp_path / "run")
    before = (run / "manifest.json").read_bytes()

    result = invoke(merge_command.command, run, "-o", run)

    assert result.exit_code == 2
    assert "nothing is overwritten" in result.output
    assert (run / "manifest.json").read_bytes() == before


def test_merge_refuses_different_code_and_names_the_way_to_compare(tmp_path):
    """Half of one program and half of another is the run of neither."""
    one = sample_runs.write(tmp_path / "a")
    other = sample_runs.write(tmp_path / "b", environment=sample_runs.ENVIRONMENT | {"code": "0ther"})

    result = invoke(merge_command.command, one, other, "-o", tmp_path / "all")

    assert result.exit_code == 2
    assert "different code" in result.output
    assert not (tmp_path / "all").exists()


def test_merge_refuses_cells_that_two_runs_judge_differently(tmp_path):
    """Nobody chooses which verdict is kept."""
    line = sample_runs.check("A5", "p", "torch", "float32")
    one, other = sample_runs.write(tmp_path / "a", [line]), sample_runs.write(tmp_path / "b", [line | {"verdict": "FAIL"}])

    with pytest.raises(ReportError, match="PASS and FAIL"):
        merged([read(one), read(other)])


def test_merge_keeps_the_less_trusted_of_two_runs_timings(tmp_path):
    """Trust is not gained by merging; a limit is the best ever seen."""
    parts = [sample_runs.bench(trusted=trusted, lengths=(length,)) for trusted, length in [(True, 64), (False, 128)]]
    for line in parts[1]:
        if line["what"] == "growth":
            line["id"] += "/2"
        if line["what"] == "roof":
            line["rate"] *= 2
    folders = [sample_runs.write(tmp_path / str(i), [], part) for i, part in enumerate(parts)]

    run = merged([read(folder) for folder in folders])

    kept = {line["id"]: line for line in run.bench}
    assert kept["trust"]["trusted"] is False
    assert kept["roof/read/float32/cpu/1t/64M"]["rate"] == 4e10


def test_merge_refuses_timings_of_different_machines(tmp_path):
    """A roof of one machine says nothing about a cell of another."""
    parts = [
        sample_runs.write(
            tmp_path / str(n), [], sample_runs.bench(lengths=(n,)), environment=sample_runs.ENVIRONMENT | {"cores": n}
        )
        for n in (64, 128)
    ]

    with pytest.raises(ReportError, match="different machines"):
        merged([read(part) for part in parts])
