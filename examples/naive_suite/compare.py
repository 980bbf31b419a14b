"""The score of these tests beside the committed one of a comparison by `assert_close` on normal inputs, fault by fault.

    python examples/naive_suite/compare.py

Of each fault those tests count that ask what it is about, in its dtype, as that comparison does. Exit code 1 where another fault
than those of EXCEPT differs.
"""

import contextlib
import json
import sys
import tempfile
from pathlib import Path

from properties.evaluation.detection.catalogue import entry
from properties.evaluation.users_tests.stand_ins import option_of
from reports.records import finished
from veriformer.users_tests.scored import LINES, Progress, Request, scored

SCORE = Path(__file__).resolve().parents[2] / "properties" / "data" / "score.json"
EXCEPT = {
    "input-changed": "that comparison looks at the inputs; no number of an answer shows it",
    "last-answer-by-identity": "it shows where Python gives a new array the address of an old one",
    "last-answer-by-address": "it shows where a new array is given the memory of an old one",
}


def about(identifier: str, test: str) -> bool:
    """Whether a test asks what a fault is about, in its dtype."""
    fault, name = entry(identifier), test.partition("::")[2]
    return name.startswith(f"test_{option_of(fault) or 'attention'}[") and (bool(option_of(fault)) or fault.dtype in name)


def main() -> int:
    """Print where the two differ, and how many are alike."""
    usual = {each["id"]: each["assert_close"] for each in json.loads(SCORE.read_text(encoding="utf-8"))["entries"]}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(Path(__file__).parent):
        tests, kernel = ("test_plain_attention.py",), "plain_attention:attention"
        asked = Request(tests, kernel, "attention", jobs=2, folder=Path(folder), full=True, search=False)
        scored(asked, Progress(lambda *_: None))
        lines = [line for line in finished(Path(folder) / LINES) if line["kind"] in ("fault", "cheat")]
    noticed = {line["id"]: any(about(line["id"], test) for test in line["failed"]) for line in lines}
    differ = [identifier for identifier, found in noticed.items() if found != usual[identifier]]
    for identifier in differ:
        said = "noticed by these tests alone" if noticed[identifier] else "noticed by the comparison alone"
        print(f"{identifier}: {said}{f' ({EXCEPT[identifier]})' if identifier in EXCEPT else ''}")
    print(f"{len(noticed) - len(differ)} of {len(noticed)} faults and cheats alike")
    return int(not set(differ) <= EXCEPT.keys())


if __name__ == "__main__":
    sys.exit(main())
