"""An option of a run is spelt once: everything that takes it takes it from the one record."""

import inspect

import pytest

from veriformer import engine, verify
from veriformer.commands.verify import command
from veriformer.run_options import BY_FIELD, RunOptions

ALL = {
    "step": "softmax",
    "arrays": "numpy",
    "dtypes": ("float32", "float64"),
    "device": "cuda:0",
    "claims": ("A5",),
    "backward": True,
    "conventions": "mask_polarity=open",
    "contract": "mode=fused",
    "domain": "d_k=16|32",
    "like": "onnx",
    "examples": 3,
    "seed": 0,
    "maxfail": 2,
    "max_time": 0.5,
}


def test_what_is_said_is_read_back():
    """As a command line says it; every option has another value than its default."""
    options = RunOptions(**ALL)
    assert all(getattr(options, name) != each.default for name, each in BY_FIELD.items())

    names = {each.name: each.field for each in BY_FIELD.values()}
    said = {}
    for argument in options.said():
        name, equals, value = argument.removeprefix("--").partition("=")
        said[names[name]] = value if equals else True

    assert RunOptions.read(said) == options
    assert RunOptions.read({}) == RunOptions()
    assert RunOptions().said() == ["--device=cpu", "--max-time=10.0"]


def test_verify_takes_every_option():
    """With the same defaults, but that a call is of one dtype and draws the same examples each time."""
    parameters = dict(inspect.signature(verify).parameters)
    assert parameters.pop("dtype").default == "float32"
    assert parameters.pop("seed").default == 0
    parameters.pop("target")

    left = {name: each for name, each in BY_FIELD.items() if name not in ("dtypes", "seed", "maxfail")}
    assert parameters.keys() == left.keys()
    assert all(each.default == (left[name].default or each.default) for name, each in parameters.items())


def test_the_command_takes_every_option():
    """By the name that it has everywhere."""
    names = {parameter.name: parameter.opts[0] for parameter in command.params}

    assert {each.field: f"--{each.name}" for each in BY_FIELD.values()}.items() <= names.items()


def test_a_request_holds_every_option(tmp_path):
    """And says it to pytest."""
    request = engine.Request(targets=("mine",), run=tmp_path, **ALL)

    assert set(request.said()) <= set(request.arguments())


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("examples", 0, "--examples: expected a whole number of at least 1, got 0"),
        ("examples", 2.5, "--examples: expected a whole number of at least 1, got 2.5"),
        ("seed", "-1", "--seed: expected a whole number of at least 0, got -1"),
        ("max_time", "soon", "--max-time: expected a number of seconds above 0, got soon"),
        ("max_time", float("nan"), "--max-time: expected a number of seconds above 0, got nan"),
        ("arrays", "jax", "--arrays: expected one of torch, numpy, got jax"),
        ("claims", 3, "--claims: expected a list, got 3"),
    ],
)
def test_what_an_option_cannot_be_is_refused_in_one_line(name, value, complaint):
    """Wherever it was said."""
    with pytest.raises(ValueError, match=r"^--") as refusal:
        RunOptions.read({name: value})

    assert str(refusal.value) == complaint
