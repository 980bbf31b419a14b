"""The repository rules that no linter states, read from the syntax trees of our own files."""

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from properties.claims import CLAIMS
from properties.steps import STEPS
from reference import STEPS as STEP_MODULES

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("reference", "optimized", "properties", "bench", "reports", "veriformer")
TOLERANCES = {"atol", "rtol", "abs_tol", "rel_tol", "abs", "rel", "decimal", "significant", "places", "delta"}
HOLD_TOLERANCES = {"budgets.py", "baseline_checks.py"}  # ours, and what others use by default: measured beside ours
COMPARISONS = {"allclose", "isclose", "assert_close", "assert_allclose", "approx", "assert_almost_equal", "assertAlmostEqual"}


def files(package: str) -> list[Path]:
    """Every Python file of a package."""
    return sorted((ROOT / package).rglob("*.py"))


def tree(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(path: Path) -> set[str]:
    """The top-level packages a file imports, wherever in the file it does."""
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or ".").split(".")[0] if node.level == 0 else path.parent.name)
    return names


def functions(path: Path) -> dict[str, ast.FunctionDef]:
    """The public functions of a module, by name."""
    return {node.name: node for node in tree(path).body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")}


def arguments(function: ast.FunctionDef) -> list[str]:
    """The names of a function's arguments, in order."""
    return [argument.arg for argument in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]


def suite(package: str = "properties") -> Iterator[tuple[Path, ast.FunctionDef]]:
    """Every test function of a package's test files."""
    for path in files(package):
        if path.name.startswith("test_"):
            for node in ast.walk(tree(path)):
                if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                    yield path, node


def claimed(function: ast.FunctionDef) -> Iterator[str]:
    """The ids of the claims that a test carries."""
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name) and decorator.func.id == "claim":
            identifier = decorator.args[0]
            assert isinstance(identifier, ast.Constant), f"{function.name}: a claim's id is written out"
            yield identifier.value


@pytest.mark.parametrize("path", files("reference"), ids=lambda path: path.name)
def test_the_oracle_imports_numpy_and_nothing_that_computes(path):
    """The standard library, NumPy, jaxtyping and itself."""
    allowed = {"numpy", "jaxtyping", "reference", *sys.stdlib_module_names}

    assert imported(path) <= allowed


@pytest.mark.parametrize("path", files("optimized"), ids=lambda path: path.name)
def test_the_fast_one_never_imports_the_oracle(path):
    """Nor any other of our packages: what is compared shares no code."""
    assert not imported(path) & (set(PACKAGES) - {"optimized"})


def test_nobody_imports_a_test_file():
    """Product code depends on no test; a file of tests may share a helper with another."""
    importers = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in files(package)
        if not path.name.startswith("test_")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and (node.module or "").rpartition(".")[2].startswith("test_")
    }

    assert importers == set()


@pytest.mark.parametrize("module", STEP_MODULES)
def test_every_step_has_the_same_file_name_in_both_columns(module):
    """A step is a row, a folder is a column."""
    for package in ("reference", "optimized"):
        assert (ROOT / package / f"{module}.py").is_file()
    assert (ROOT / "properties" / f"test_{module}.py").is_file()


def test_every_step_belongs_to_a_row():
    """The steps an implementation may offer are those of the article's table, each with a row of it."""
    assert {step.row for step in STEPS.values()} == set(STEP_MODULES)


@pytest.mark.parametrize("module", STEP_MODULES)
def test_functions_of_the_same_name_take_the_same_arguments(module):
    """What both columns call alike takes arguments of the same names; the fast one may take more."""
    slow, fast = functions(ROOT / "reference" / f"{module}.py"), functions(ROOT / "optimized" / f"{module}.py")
    shared = slow.keys() & fast.keys()

    assert shared, f"reference/{module}.py and optimized/{module}.py have no function in common"
    for name in shared:
        for_the_trace = {"name"} if name == "residual_norm" else set()
        assert set(arguments(slow[name])) - for_the_trace <= set(arguments(fast[name])), name


def tolerance_literals(path: Path) -> list[str]:
    """Where a file compares within a tolerance of its own, as file:line."""
    found = []
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        keywords = {keyword.arg for keyword in node.keywords}
        if name in COMPARISONS or keywords & {"atol", "rtol", "abs_tol", "rel_tol"} or ("assert" in name and keywords & TOLERANCES):
            found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_no_tolerance_outside_budgets(package):
    """One module knows how far rounding goes; everything else asks it."""
    found = [place for path in files(package) if path.name not in HOLD_TOLERANCES for place in tolerance_literals(path)]

    assert found == []


def test_every_claim_that_can_break_has_a_test():
    """Each law and each refuted claim is carried by at least one test; no test carries a claim that does not exist."""
    carried = {identifier for _, function in suite() for identifier in claimed(function)}
    claims = {claim.id: claim for claim in CLAIMS}

    assert carried <= claims.keys()
    assert {identifier for identifier, claim in claims.items() if claim.kind != "study"} <= carried


def test_every_test_says_what_it_shows():
    """Every test has a docstring that states the behaviour."""
    assert [f"{path.name}::{function.name}" for path, function in suite() if not ast.get_docstring(function)] == []


def test_no_two_tests_of_a_file_share_a_name():
    """The second would replace the first without a word."""
    names = Counter(f"{path.name}::{function.name}" for path, function in suite())

    assert [name for name, times in names.items() if times > 1] == []


@pytest.mark.parametrize(
    "package", [package for package in PACKAGES if package != "veriformer"]
)  # the package re-exports what users import
def test_packages_re_export_nothing(package):
    """`__init__.py` holds the docstring and constants: a function `softmax` in it would shadow the module `softmax`."""
    init = ROOT / package / "__init__.py"
    assert init.is_file()
    assert not [node for node in ast.walk(tree(init)) if isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef))]
