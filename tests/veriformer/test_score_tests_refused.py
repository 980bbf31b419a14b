"""What cannot be scored is refused in one line."""

import re

import pytest
from scored_project import KERNEL, project, refused

BAD = {
    "fails": (
        "def test_it():\n    attention(*[torch.ones(1, 1, 1, 1)] * 3)\n    assert 1 == 2",
        r"--tests: 1 of 1 tests fail with .* itself",
    ),
    "unused": ("def test_it():\n    pass", r"--replaces: nothing was replaced: none of 1 tests calls kernels:attention"),
    "broken": ("import no_such_module", r"--tests: test_kernels.py: .*no_such_module"),
    "hangs": (
        "def test_it():\n    import time; time.sleep(100)",
        r"--time-limit: the tests did not end within 2 s .*test_it was running",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_scored_is_one_line(tmp_path, name):
    """Each names what was expected, and exits with 2."""
    text, expected = BAD[name]
    folder = project(tmp_path, tests=f"import torch\nfrom kernels import attention\n{text}\n")
    limit = ["--time-limit=2"] if name == "hangs" else []

    said = refused(folder, "--tests", "test_kernels.py", "--replaces", "kernels:attention", *limit)

    assert re.match(expected, said), said


def test_options_that_do_not_go_together_are_refused(tmp_path):
    """Before anything is imported."""
    folder = project(tmp_path)
    tests, kernel = ("--tests", "test_kernels.py"), ("--replaces", "kernels:attention")

    assert refused(folder, *tests).startswith("--replaces: expected the kernel")
    assert refused(folder, *kernel).startswith("--replaces: goes with --tests")
    assert refused(folder, *tests, *kernel, "--seed=1").startswith("--seed: ")
    assert refused(folder, "--tests", "no.py", *kernel) == "--tests: no file or folder 'no.py'"
    assert refused(folder, *tests, "--replaces", "kernels").startswith("--replaces: expected module:attribute")
    assert refused(folder, *tests, "--replaces", "kernels:Layer").startswith("--as: 'Layer' is not the name of a step")
    assert refused(folder, *tests, *kernel, "--only=no").startswith("--only: no fault 'no' of attention")
    assert refused(folder, *tests, "--replaces", "kernels:no", "--as=attention").endswith("kernels has no 'no'")


def test_a_kernel_of_something_else_is_refused(tmp_path):
    """Where no correct attention passes, no fault of attention could be told."""
    tests = """
        import torch
        from kernels import attention

        def test_value():
            q = torch.eye(4)[None, None]
            assert attention(q, q, q).sum() > 7
    """
    folder = project(tmp_path, KERNEL.replace("@ v", "@ v * 2"), tests)

    said = refused(folder, "--tests", "test_kernels.py", "--replaces", "kernels:attention", "--only=zeros")

    assert said.startswith("--replaces: every test that calls kernels:attention fails with a correct attention in its place")
