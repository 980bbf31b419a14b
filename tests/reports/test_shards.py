"""One plan, several machines: nothing is done twice, nothing is left out unseen."""

import json

import pytest
import sample_runs
from click.testing import CliRunner

from properties.run import run_folder
from reports.findings import Findings
from reports.folders import read
from reports.merge import merged, offered
from veriformer import shards
from veriformer.commands import merge as merge_command
from veriformer.commands import plan as plan_command
from veriformer.commands import run as run_command


def invoke(command, *arguments):
    """Run a command as the CLI does."""
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def plan_of(claims, workloads=()):
    """A plan of these claims, with so many checks each, and of two cells for each workload."""
    planned = [
        {"claim": claim, "property": f"test_{i}", "implementation": "reference", "dtype": "float64", "device": "cpu"}
        for claim, count in claims.items()
        for i in range(count)
    ]
    cells = [f"{workload}/float32/cpu/1t/{peer}" for workload in workloads for peer in ("optimized", "torch.eager")]
    return shards.Plan(run_folder.SCHEMA, run_folder.code_hash(), {}, planned, {} if cells else None, cells)


@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_every_claim_and_workload_is_in_exactly_one_part(of):
    """However many machines there are, also more than claims; a claim or a comparison is never split."""
    plan = plan_of({"A5": 7, "M3": 4, "E1": 1, "T1": 1}, ["attention.64", "softmax.8", "encoder.8"])

    parts = [plan.part(number, of) for number in range(1, of + 1)]

    assert sorted(claim for part in parts for claim in part.claims) == ["A5", "E1", "M3", "T1"]
    assert sorted(name for part in parts for name in part.workloads) == ["attention.64", "encoder.8", "softmax.8"]


def test_parts_are_as_equal_as_whole_claims_allow():
    """The largest first, each to whoever has least: at most a third above an equal share (Graham 1969, doi:10.1137/0117039)."""
    sizes = {f"X{i}": size for i, size in enumerate([9, 8, 7, 6, 5, 4, 3, 2, 1])}

    loads = [sum(sizes[name] for name in shards.share(sizes, number, 3)) for number in (1, 2, 3)]

    assert sum(loads) == sum(sizes.values())
    assert max(loads) <= 4 / 3 * sum(sizes.values()) / 3


def test_a_plan_shared_by_two_machines_is_the_whole_run(tmp_path):
    """Every planned check has its verdict after the merge; with one part lacking, that part's checks are missing and red."""
    plan = tmp_path / "plan.json"
    planned = invoke(plan_command.command, "reference", "--claims=H1,H4", "--examples=2", "-o", plan)
    assert planned.exit_code == 0, planned.output
    for number in (1, 2):
        done = invoke(run_command.command, plan, f"--shard={number}/2", "--run", tmp_path / str(number))
        assert done.exit_code == 0, done.output

    whole, half = (Findings(merged([read(tmp_path / name) for name in names])) for names in (("1", "2"), ("1",)))

    checks = json.loads(plan.read_text(encoding="utf-8"))["planned"]
    assert {check["claim"] for check in checks} == {"H1", "H4"}
    assert len(whole.checks) == whole.done == len(checks)
    assert 0 < half.done < len(half.checks) == len(checks)
    assert invoke(merge_command.command, tmp_path / "1", tmp_path / "2", "-o", tmp_path / "all").exit_code == 0
    assert Findings(read(tmp_path / "all")).missing.empty


def test_plan_of_other_code_is_refused(tmp_path):
    """Its checks may no longer exist."""
    path = tmp_path / "plan.json"
    plan_of({"A5": 1}).write(path)
    path.write_text(path.read_text(encoding="utf-8").replace(run_folder.code_hash(), "0ther"), encoding="utf-8")

    result = invoke(run_command.command, path)

    assert result.exit_code == 2
    assert "planned by other code (0ther" in result.output


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"schema": 1}'])
def test_what_is_no_plan_is_refused(tmp_path, text):
    """One line, exit code 2."""
    path = tmp_path / "plan.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")

    result = invoke(run_command.command, path)

    assert result.exit_code == 2
    assert "expected a plan written by `veriformer plan`" in result.output


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "-1/2"])
def test_shard_that_does_not_exist_is_refused(tmp_path, shard):
    """Parts are counted from 1."""
    result = invoke(run_command.command, tmp_path / "plan.json", f"--shard={shard}")

    assert result.exit_code == 2
    assert "expected a part such as 2/4" in result.output


def test_plan_overwrites_nothing_and_refuses_what_does_not_exist(tmp_path):
    """A file in the way, a claim and a workload that are none."""
    (tmp_path / "there").write_text("mine", encoding="utf-8")

    taken = invoke(plan_command.command, "reference", "-o", tmp_path / "there")
    no_claim = invoke(plan_command.command, "reference", "--claims=ZZ", "-o", tmp_path / "new")
    no_workload = invoke(plan_command.command, "reference", "--claims=H1", "--workloads=zz", "-o", tmp_path / "new")

    assert [result.exit_code for result in (taken, no_claim, no_workload)] == [2, 2, 2]
    assert "nothing is overwritten" in taken.output
    assert (tmp_path / "there").read_text(encoding="utf-8") == "mine"
    assert not (tmp_path / "new").exists()


def test_what_is_not_offered_may_be_left_out_and_what_is_declined_stays(tmp_path):
    """With the claims that nobody is asked any more."""
    asked = sample_runs.checks()
    gone, kept = asked[0]["claim"], asked[-1]["claim"]
    for line in asked:
        if line["claim"] in (gone, kept):
            message = "does not offer softmax" if line["claim"] == gone else "more than half refused: n = 3"
            line |= {"verdict": "UNSUPPORTED", "message": message}

    run = offered(read(sample_runs.write(tmp_path / "run", asked)))

    assert gone not in {check.claim for check in run.planned} | {claim["id"] for claim in run.manifest["claims"]}
    assert [each.message for each in run.verdicts if each.claim == kept] == ["more than half refused: n = 3"] * len(
        [line for line in asked if line["claim"] == kept]
    )
    assert len(run.planned) == len(run.manifest["planned"]) == len([line for line in asked if line["claim"] != gone])
