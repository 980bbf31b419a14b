"""The examples are short, and what they verify passes."""

import ast
from pathlib import Path

import pytest

from veriformer import verify

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.mark.parametrize(
    ("name", "step", "claims"),
    [("packed_kernel", "packed_attention", "Y3,Y5"), ("paged_decode", "paged_attention", "Y4,Y5")],
)
def test_an_example_of_a_kernel_is_short_and_verified(name, step, claims):
    """A function of at most 15 lines that passes all its properties, and refuses what cannot be."""
    path = EXAMPLES / f"{name}.py"
    (function,) = (node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef))
    lines = (function.end_lineno or 0) - function.lineno + 1

    found = verify(f"{path}:{step}", claims=claims, examples=5)

    assert lines <= 15
    assert found
    assert {verdict.claim for verdict in found} == set(claims.split(","))
    assert ("corrupt_indices", "refused") in {(choice.name, choice.choice) for each in found.follows for choice in each.conventions}
