"""The oracle is out of an implementation's reach, and a user's own packages of the same names are not."""

import numpy as np
import pytest

from properties.verdicts import ImplementationError
from veriformer.isolation.proxy import ImplementationProxy, TargetError

PEEKS = """
import torch
def softmax(scores):
    from properties.implementations.oracle import oracle
    return torch.as_tensor(oracle("softmax", scores.double().numpy())).to(scores.dtype)
"""


def test_a_implementation_that_answers_with_the_oracle_is_an_error(tmp_path, monkeypatch):
    """Its import fails inside the call, which says why."""
    (tmp_path / "peeks.py").write_text(PEEKS)
    monkeypatch.chdir(tmp_path)
    with (
        ImplementationProxy("peeks:softmax") as candidate,
        pytest.raises(ImplementationError, match=r"properties.* is the oracle's"),
    ):
        candidate.call("softmax", (np.zeros((1, 2)),), {}, "float32")


def test_a_implementation_that_imports_the_oracle_is_refused(tmp_path, monkeypatch):
    """At import it is a usage error, in one line."""
    (tmp_path / "reads.py").write_text("import reference.softmax\nsoftmax = reference.softmax.softmax\n")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(TargetError, match="is the oracle's"):
        ImplementationProxy("reads:softmax", arrays="numpy")


def test_a_users_own_package_of_that_name_is_theirs(tmp_path, monkeypatch):
    """A project may have a `properties` of its own."""
    (tmp_path / "properties").mkdir()
    (tmp_path / "properties" / "__init__.py").write_text("import torch\nsoftmax = lambda scores: torch.softmax(scores, -1)\n")
    monkeypatch.chdir(tmp_path)

    with ImplementationProxy("properties:softmax") as candidate:
        assert candidate.steps == {"softmax"}
