"""What public test suites of attention, softmax and LayerNorm let through: `veriformer score --tests` of each, from its wheel.

    python examples/public_suites/score.py            every suite; what was found is written to found.json, from which
                                                      docs/public-suites.md is made
    python examples/public_suites/score.py NAME...    some of them

Packages come by pip at the versions below, into runs/public-suites; torch and NumPy are those of this environment. A score that is
begun goes on where it ended.
"""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any, NamedTuple

import msgspec

from reports.tests_score_records import ScoredFault, TestsScore

HERE = Path(__file__).resolve().parent
FOUND = HERE / "found.json"
FOLDER = HERE.parents[1] / "runs" / "public-suites"
BESIDE = ("torch", "numpy", "pytest")


class Suite(NamedTuple):
    """Tests that a package's wheel ships, and the kernel that they call.

    packages   the package and what it needs, at the versions that were scored
    tests      files of the wheel, or one that is beside this script
    select     pytest's -k: the tests that are about the kernel
    """

    packages: tuple[str, ...]
    replaces: str
    step: str
    tests: tuple[str, ...]
    select: str = ""
    environment: dict[str, str] = {}  # noqa: RUF012 (of a NamedTuple)


KERAS = ("keras==3.15.1", "absl-py==2.5.1", "h5py==3.16.0", "ml-dtypes==0.6.0", "namex==0.1.0", "optree==0.20.0")
ON_TORCH = {"KERAS_BACKEND": "torch"}
ONNX = ("onnx==1.23.2", "protobuf==7.36.2", "ml-dtypes==0.6.0")

SUITES = {
    "keras-attention": Suite(
        KERAS,
        "keras.src.backend.torch.nn:dot_product_attention",
        "attention",
        (
            "keras/src/ops/nn_test.py",
            "keras/src/layers/attention/multi_head_attention_test.py",
            "keras/src/layers/attention/grouped_query_attention_test.py",
        ),
        "attention and not quantize and not lora",
        ON_TORCH,
    ),
    "keras-softmax": Suite(
        KERAS,
        "keras.src.backend.torch.nn:softmax",
        "softmax",
        ("keras/src/ops/nn_test.py", "keras/src/layers/activations/softmax_test.py", "keras/src/activations/activations_test.py"),
        "softmax and not DtypeTest",
        ON_TORCH,
    ),
    "keras-layer-norm": Suite(
        KERAS,
        "keras.src.ops.nn:_layer_normalization",
        "layer_norm",
        ("keras/src/ops/nn_test.py", "keras/src/layers/normalization/layer_normalization_test.py"),
        "(layer_norm or LayerNorm) and not DtypeTest",
        ON_TORCH,
    ),
    "onnx-attention": Suite(
        ONNX,
        "onnx.reference.ops.op_attention:_compute_attention",
        "attention",
        ("test_onnx_backend.py",),
        "test_attention_ and cpu and not expanded",
    ),
    "scipy-softmax": Suite(
        ("scipy==1.17.1",), "scipy.special:softmax", "softmax", ("scipy/special/tests/test_logsumexp.py",), "softmax"
    ),
    "scikit-learn-softmax": Suite(
        ("scikit-learn==1.9.1", "narwhals==2.22.0"),
        "sklearn.utils.extmath:softmax",
        "softmax",
        ("sklearn/utils/tests/test_extmath.py",),
        "softmax",
    ),
}


def main(*asked: str) -> None:
    """Score the suites of these names, all without one."""
    found = json.loads(FOUND.read_text(encoding="utf-8")) if FOUND.exists() else {}
    for name in asked or SUITES:
        found[name] = compact(SUITES[name], record(name, SUITES[name]))
        FOUND.write_text(json.dumps({each: found[each] for each in SUITES if each in found}, indent=1) + "\n", encoding="utf-8")


def record(name: str, suite: Suite) -> TestsScore:
    """The score of a suite in a folder of its own, whose pytest configuration is none."""
    folder = FOLDER / name
    packages, out = folder / "packages", folder / "score.json"
    if not packages.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
        subprocess.run([*pip, packages, *suite.packages], check=True)
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    tests = []
    for test in suite.tests:
        own = HERE / test
        if own.exists():
            shutil.copy(own, folder)
        tests.append(test if own.exists() else str(Path("packages") / test))
    command = [sys.executable, "-P", "-m", "veriformer", "score", "--tests", *tests, "--replaces", suite.replaces]
    command += ["--as", suite.step, "--jobs", "1", "--run", "run", "--out", out.name]
    search = {"PYTHONPATH": str(packages), "PYTEST_ADDOPTS": f"-k '{suite.select}'"}
    subprocess.run(command, cwd=folder, env=os.environ | search | suite.environment, check=False)  # 1: something got through
    return msgspec.json.decode(out.read_bytes(), type=TestsScore)


def compact(suite: Suite, scored: TestsScore) -> dict[str, Any]:
    """What the page says of a score."""
    tests = scored.each_test
    return {
        "packages": list(suite.packages),
        "beside": {name: version(name) for name in BESIDE} | {"python": python_version()},
        "replaces": scored.replaces,
        "step": scored.step,
        "options": scored.options,
        "conventions": scored.conventions,
        "tests": len(tests),
        "skipped": sum(bool(test.skipped) for test in tests),
        "calling": sum(bool(test.calls) for test in tests),
        "calls": scored.calls,
        "unread": scored.unread,
        "faults": scored.of("fault"),
        "cheats": scored.of("cheat"),
        "cannot_fail": len(scored.cannot_fail),
        "correct": len(scored.correct),
        "wronged": {each.id: each.failed or each.ended for each in scored.wronged},
        "survivors": [survivor(each) for each in scored.survivors],
        "not_shown": [each.id for each in scored.not_shown],
        "seconds": scored.seconds,
    }


def survivor(fault: ScoredFault) -> dict[str, str]:
    """What the page says of a fault that got through."""
    how = fault.how.replace("your", "these")
    return {"id": fault.id, "kind": fault.kind, "shows": fault.shows, "how": how, "dtype": fault.dtype, "input": fault.input}


if __name__ == "__main__":
    main(*sys.argv[1:])
