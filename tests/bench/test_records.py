"""The records of bench.jsonl: committed lines are read, wrong ones are refused with their place, and what is written comes back."""

import json
import math
from pathlib import Path

import pytest

from bench.runner.records import FILE, mend, records, write
from reports.bench_records import RECORDS, Cost, Counters, Gate, line, record
from reports.records import RecordError

COMMITTED = [
    fields
    for path in sorted((Path(__file__).resolve().parents[2] / "reports" / "runs").glob(f"*/{FILE}"))
    for fields in map(json.loads, path.read_text(encoding="utf-8").splitlines())
]
COST = Cost("cost/oracle/mask", "oracle", "mask", 0.5, 2.0, 3)


def test_every_committed_line_is_a_record_and_says_the_same_when_written_again():
    """Of every kind but counters, which no committed run has."""
    assert len(COMMITTED) > 900
    for fields in COMMITTED:
        assert fields.items() <= line(record(fields)).items()
    assert {fields["what"] for fields in COMMITTED} >= RECORDS.keys() - {"counters"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"repeats": "three"}, r"Expected `int`, got `str` - at `\$.repeats`"),
        ({"what": "costs"}, "expected 'what' to be one of process, .*, got 'costs'"),
        ({"what": ["cost"]}, "expected 'what' to be one of"),
    ],
)
def test_a_line_that_is_no_record_is_refused_with_what_was_expected(change, said):
    """In one line."""
    with pytest.raises(RecordError, match=said):
        record(line(COST) | change)


def test_an_infinite_error_survives_the_disk(tmp_path):
    """JSON has no infinity: it is a string there, and a float in the record."""
    group = {"group": "g", "workload": "w", "step": "mask", "dtype": "float32", "device": "cpu", "threads": 1, "sizes": {}}
    wrong = Counters(id="g/mine", **group, peer="mine", status="wrong", gate=Gate("FAIL", "A5", share=math.inf))

    write(tmp_path, wrong)

    assert '"share": "Infinity"' in (tmp_path / FILE).read_text()
    assert records(tmp_path, Counters) == [wrong]


def test_of_two_lines_with_one_id_the_last_counts_and_a_torn_one_is_cut_off(tmp_path):
    """What a kill left half is not continued by the next line."""
    write(tmp_path, COST)
    (tmp_path / FILE).open("a").write('{"what": "cost", "id": "torn')

    mend(tmp_path)
    write(tmp_path, Cost("cost/oracle/mask", "oracle", "mask", 0.25, 4.0, 3))

    assert [each.seconds for each in records(tmp_path, Cost)] == [0.25]
