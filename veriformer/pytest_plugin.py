"""The pytest plugin: which implementations the properties run on, and one JSON line for every verdict.

Loaded in every pytest run of an environment that has veriformer, so it must not be noticed in others': its options exist only
in runs that name our properties or an implementation, and no package is imported before properties are collected.
"""

import re
import secrets
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from veriformer.planned import PLAN, Cell, Plan, must_be_ours
from veriformer.run_options import BY_FIELD, RunOption, RunOptions, items
from veriformer.verdict_lines import Writer, cell_of, check_of, line_of, not_judged, planned, property_of

if TYPE_CHECKING:
    import numpy as np

    from properties.claims import Property
    from properties.implementations.impl import Impl
    from veriformer.rounding import Rounding

ROOT = Path(__file__).resolve().parents[1]
JUDGEMENT = pytest.StashKey[dict[str, Any]]()
PROFILES = ("quick", "ci", "nightly")  # as in `properties.verdict.profiles`, which is not imported for it

# ---- options ----


def _ours(config: pytest.Config, args: list[str]) -> bool:
    """Whether this run is about our properties: it names them or an implementation, or it starts in our own root."""
    named = any(arg.startswith("--implementation") or "properties" in re.split(r"[/\\.:]", arg) for arg in args)
    return named or config.rootpath == ROOT


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser, args: list[str]) -> None:
    """Add our options, where they are wanted: a user's own conftest may define `--device` or `--seed` for itself."""
    if not _ours(early_config, args):
        return
    group = parser.getgroup("veriformer", "verification of Transformer implementations")
    group.addoption(
        "--implementation", action="append", metavar="TARGET", help="built-in name, module:attribute or file.py:attribute"
    )
    for option in (option for option in BY_FIELD.values() if not option.pytests_own):
        group.addoption(f"--{option.name}", dest=option.field, help=option.text, **_as_pytest_has_it(option))
    group.addoption(
        "--veriformer-profile",
        choices=PROFILES,
        help="how hard the properties look, and they alone: --hypothesis-profile is of all tests of a run",
    )
    group.addoption("--run", dest="run_folder", metavar="DIR", help="write manifest.json and verify.jsonl there")
    if "--pyargs" in args:  # our conftest, which does so for a path, is then loaded too late for --hypothesis-profile
        from properties.verdict import profiles

        profiles.register()


def _as_pytest_has_it(option: RunOption) -> dict[str, Any]:
    """How pytest takes it, to be read by us. Lists may be said several times."""
    if option.kind == "flag":
        return {"action": "store_true"}
    if option.kind == "list" or option.name == "device":
        return {"action": "append", "metavar": option.metavar}
    return {"metavar": option.metavar}


def _said(value: Any) -> Any:
    """Lists that were said several times, as one."""
    return ",".join(value) if isinstance(value, list) else value


def pytest_configure(config: pytest.Config) -> None:
    """Read the options into a plan, and have the verdicts written into the run's folder."""
    config.addinivalue_line("markers", "claim(id): the claim of the article that a property carries")
    if hasattr(config.option, "run_folder"):
        _prepare_run(config, plan_of(config))


def plan_of(config: pytest.Config) -> Plan:
    """What the options ask for; made once."""
    if PLAN not in config.stash:
        config.stash[PLAN] = _plan(config)
    return config.stash[PLAN]


def _plan(config: pytest.Config) -> Plan:
    option = config.option
    said = {each.field: _said(getattr(option, each.field)) for each in BY_FIELD.values() if not each.pytests_own}
    try:
        options = RunOptions.read(said)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    return Plan(
        items(_said(option.implementation) or ()),
        options,
        _seed(config, options),
        Path(option.run_folder) if option.run_folder else None,
    )


def _seed(config: pytest.Config, options: RunOptions) -> int:
    """As asked for; the nightly profile draws one, the same for all workers of the run."""
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    if worker is not None:
        return worker["veriformer_seed"]
    if options.seed is not None:
        return options.seed
    profile = config.option.veriformer_profile or getattr(config.option, "hypothesis_profile", None)
    return secrets.randbelow(2**32) if profile == "nightly" else 0


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hand the seed to a worker of xdist."""
    plan = node.config.stash.get(PLAN, None)
    node.workerinput["veriformer_seed"] = 0 if plan is None else plan.seed


def _prepare_run(config: pytest.Config, plan: Plan) -> None:
    """Refuse a folder that already holds a run, and have the verdicts written there."""
    folder = plan.run
    if folder is None or hasattr(config, "workerinput"):
        return
    if (folder / "manifest.json").exists():
        raise pytest.UsageError(f"--run {folder}: this folder already holds a run; name another, or remove it")
    config.pluginmanager.register(Writer(folder, plan.seed), "veriformer_writer")


def pytest_report_header(config: pytest.Config) -> str | None:
    """The seed, which with the options makes the run again."""
    plan = config.stash.get(PLAN, None)
    if plan is None:
        return None
    return f"veriformer: seed {plan.seed}, {', '.join(plan.implementations) or 'built-in implementations'}"


# ---- which property runs on what ----


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Refuse what cannot be done as asked, before any file of properties is imported."""
    if (plan := session.config.stash.get(PLAN, None)) is not None:
        plan.check()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give every property its implementations: each planned implementation at each of its dtypes."""
    prop = property_of(metafunc.function)
    if prop is None:
        return
    plan = metafunc.config.stash[PLAN]
    must_be_ours()
    cells = [] if plan.claims and prop.claim not in plan.claims else list(_cells_of(plan, prop))
    metafunc.parametrize("impl", cells, ids=[str(cell) for cell in cells], indirect=True, scope="function")


def _cells_of(plan: Plan, prop: "Property") -> Iterator[Cell]:
    from properties.implementations.registry import DEFAULT_CELLS

    if prop.oracle_only:
        asked = not plan.implementations or "reference" in plan.implementations
        yield from [Cell("reference", "float64", "cpu")] if asked else []
        return
    if plan.implementations:
        cells = plan.cells()
    else:
        wanted = [(name, dtype) for name, dtype in DEFAULT_CELLS if dtype in (plan.options.dtypes or (dtype,))]
        cells = (Cell(name, dtype, device) for name, dtype in wanted for device in plan.devices)
    for cell in cells:
        if prop.dtypes is None or cell.dtype in prop.dtypes:
            yield cell


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With an implementation or claims named, only properties run: tests about the suite itself are left out."""
    plan = config.stash.get(PLAN, None)
    if plan is None:
        return
    for item in items:
        if prop := property_of(getattr(item, "function", None)):
            item.add_marker(pytest.mark.claim(prop.claim))
    if plan.implementations or plan.claims:
        kept = [item for item in items if property_of(getattr(item, "function", None)) and getattr(item, "callspec", None)]
        kept = [item for item in kept if not _is_empty_set(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


def _is_empty_set(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    return callspec is not None and not isinstance(callspec.params.get("impl"), Cell)


@pytest.fixture
def impl(request: pytest.FixtureRequest) -> "Impl":
    """The implementation a property runs on."""
    return request.config.stash[PLAN].impl(request.param)


# ---- for a user's own tests ----


@pytest.fixture(scope="session")
def oracle() -> "Callable[..., np.ndarray]":
    """What a step is exactly, in float64: the function `veriformer.oracle`."""
    import veriformer

    return veriformer.oracle


@pytest.fixture(scope="session")
def within_rounding() -> "Callable[..., Rounding]":
    """Whether a result of a step is what rounding makes of the exact one: `veriformer.within_rounding`, to assert on."""
    import veriformer

    return veriformer.within_rounding


# ---- run, judge, write down ----


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a property and judge it: an exception becomes a verdict, and a property that compared nothing fails."""
    prop = property_of(pyfuncitem.function)
    if prop is None:
        return None
    from properties.verdict import profiles

    with profiles.in_force(pyfuncitem.config.option.veriformer_profile):
        return _run_property(pyfuncitem, prop)


def _run_property(pyfuncitem: pytest.Function, prop: "Property") -> bool:
    from properties.implementations.registry import built_in_missing
    from properties.verdict import profiles
    from properties.verdict.judge import Judgement, drawing, judge, seed_of, suite_error
    from reports.records import NOT_OFFERED, Verdict
    from veriformer import replay

    impl: Any = pyfuncitem.funcargs["impl"]
    config, name = pyfuncitem.config, pyfuncitem.originalname
    plan, asked = config.stash[PLAN], cell_of(pyfuncitem)
    arguments = {arg: pyfuncitem.funcargs[arg] for arg in pyfuncitem._fixtureinfo.argnames}  # noqa: SLF001 (as pytest's own hook)
    if impl.offers(*prop.needs):
        seed = seed_of(prop.claim, name, impl.dtype, plan.seed)
        dtypes = {cell.dtype for cell in _cells_of(plan, prop) if asked and cell.implementation == asked.implementation}
        examples = plan.options.examples or profiles.examples_in_each(len(dtypes), named=bool(plan.implementations))
        unsteady = plan.unsteady(asked) if asked else None

        def test() -> None:
            if unsteady is not None:
                raise unsteady
            pyfuncitem.obj(**arguments)

        def judged(*, small: bool) -> Judgement:
            shrinking = replay.SECONDS if small and not prop.shrinks else 0.0
            with drawing(pyfuncitem.obj, seed, examples, shrinking=shrinking):
                return judge(test, prop, name, impl, small=small)

        judgement = judged(small=False)
    else:
        why = built_in_missing(impl.name) or f"{impl.name} {NOT_OFFERED}{', '.join(prop.needs)}"
        judgement = Judgement(Verdict.UNSUPPORTED, why)
    pyfuncitem.stash[JUDGEMENT] = line = judgement.as_line()
    if judgement.error is not None and judgement.verdict is not Verdict.UNSUPPORTED and not judgement.suite_error:
        try:
            line |= {"refers": False} | replay.explained(
                plan.failures, impl, prop.claim, name, judgement, lambda: judged(small=True)
            )
        except Exception as error:  # the verdict stands all the same
            line["suite_error"] = f"its counterexample could not be made small: {suite_error(error) or error}"
        else:
            judgement.error.add_note(f"the same failure as {line['failure']}" if line["refers"] else str(line["counterexample"]))
    if judgement.verdict in (Verdict.UNSUPPORTED, Verdict.KNOWN_FAILURE):
        pytest.skip(f"{judgement.verdict}: {judgement.message}")
    if judgement.error is not None:
        raise judgement.error
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Give the report of a property its verdict line, which travels to whoever writes (under xdist another process)."""
    report = yield
    prop, cell = property_of(getattr(item, "function", None)), cell_of(item)
    judged = item.stash.get(JUDGEMENT, None)
    if prop is None or cell is None or not (report.when == "call" or (report.when == "setup" and not report.passed)):
        return report
    if judged is None:
        judged = not_judged(call)
    report.user_properties.append(("veriformer", line_of(item, check_of(item, prop, cell), judged)))
    return report


@pytest.hookimpl(tryfirst=True)  # before xdist reports this worker ready, or a verdict may fall before there is a folder for it
def pytest_collection_finish(session: pytest.Session) -> None:
    """Write down what is planned, before anything runs: a check that never ran is then seen to be missing.

    And then what each implementation follows where there is a choice.
    """
    plan = session.config.stash.get(PLAN, None)
    worker = getattr(session.config, "workerinput", {"workerid": "gw0"})["workerid"]
    if plan is None or plan.run is None or worker != "gw0" or session.config.option.collectonly or not session.items:
        return
    from properties.run import run_folder

    manifest = {"planned": planned(session.items), "seed": plan.seed, "command": list(session.config.invocation_params.args)}
    if maxfail := session.config.option.maxfail:
        manifest["maxfail"] = maxfail
    manifest = run_folder.create(plan.run, manifest | {"environment": run_folder.environment(plan.devices[0])})
    cells = dict.fromkeys(cell for item in session.items if (cell := cell_of(item)) is not None)
    run_folder.rewrite(plan.run, manifest | {"follows": [plan.followed(cell) for cell in cells]})
