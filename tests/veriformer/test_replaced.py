"""A kernel is replaced wherever it is looked up, and every call goes to what stands in its place."""

import functools
import sys
from types import ModuleType

import pytest
import torch

from veriformer.isolation.replaced import NotFound, Place

KERNELS = """
import functools
import torch

def decorated(function):
    @functools.wraps(function)
    def inner(*args, **kwargs):
        return function(*args, **kwargs)
    return inner

def plain(x, *, y=2):
    return ("kernel", x, y)

@decorated
def wrapped(x, y=2):
    return ("kernel", x, y)

def recursive(n):
    return n if n == 0 else recursive(n - 1)

class Layer:
    def forward(self, x):
        return ("kernel", x)

    @staticmethod
    def apart(x):
        return ("kernel", x)

built_in = max
partial = functools.partial(plain, y=3)
"""


@pytest.fixture
def kernels(monkeypatch):
    """A module of a user's, and another that has imported from it by value."""
    module, other = ModuleType("kernels_of_a_user"), ModuleType("tests_of_a_user")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, other.__name__, other)
    exec(KERNELS, module.__dict__)  # noqa: S102 (a text of this file)
    vars(other).update({name: value for name, value in vars(module).items() if not name.startswith("_")})
    other.held = {"by name": module.built_in}
    return module


def there(*args, **kwargs):
    """What stands in the kernel's place."""
    return ("stand-in", args, kwargs)


def test_every_reference_to_a_function_leads_to_the_stand_in(kernels):
    """By value, in a partial application, in a closure; what it was answers as before, with its defaults."""
    closure = functools.partial(lambda f, *args: f(*args), kernels.plain)
    place = Place("kernels_of_a_user:plain", "attention")

    place.replace(there, [])

    assert place.parameters == ["x", "y"]
    assert sys.modules["tests_of_a_user"].plain(1) == ("stand-in", (1,), {})
    assert kernels.partial(1) == ("stand-in", (1,), {"y": 3})
    assert closure(1) == ("stand-in", (1,), {})
    assert place.original(1) == ("kernel", 1, 2)


def test_a_function_with_cells_is_replaced(kernels):
    """A decorated one has free variables, which its new body keeps."""
    place = Place("kernels_of_a_user:wrapped", "attention")

    place.replace(there, [])

    assert kernels.wrapped(1, y=5) == ("stand-in", (1,), {"y": 5})
    assert place.original(1, y=5) == ("kernel", 1, 5)


@pytest.mark.parametrize(("target", "takes_self"), [("Layer", True), ("Layer.forward", True), ("Layer.apart", False)])
def test_a_method_is_replaced_for_every_object(kernels, target, takes_self):
    """Of a class its `forward`; a static method takes no object."""
    place = Place(f"kernels_of_a_user:{target}", "attention")
    layer = kernels.Layer()

    place.replace(there, [])

    assert (place.takes_self, place.parameters) == (takes_self, ["x"])
    assert (layer.forward(1) if takes_self else layer.apart(1)) == ("stand-in", (layer, 1) if takes_self else (1,), {})


@pytest.mark.parametrize(("function", "expected"), [(lambda x, axis=None: x, True), (lambda x, dim=-1: x, False), (max, False)])
def test_whether_a_function_is_of_all_axes_is_read_off_its_default(kernels, function, expected):
    """NumPy's None, where torch's is one axis; a function without an axis, or a signature, is of none."""
    kernels.function = function

    assert Place("kernels_of_a_user:function", "softmax").all_axes is expected


def test_what_is_no_function_is_replaced_by_name(kernels):
    """In its module, in one that has it by value, in a dict of that, and among the parameters of tests."""
    place, parameters = Place("kernels_of_a_user:partial", "attention"), {"kernel": kernels.partial}

    place.replace(there, [parameters])

    other = sys.modules["tests_of_a_user"]
    assert kernels.partial(1) == other.partial(1) == parameters["kernel"](1) == ("stand-in", (1,), {})
    assert kernels.plain(1) == ("kernel", 1, 2)


def test_an_operator_is_replaced_where_torch_has_it():
    """By its Python object, and as torch.ops has it."""
    module = sys.modules["operators_of_a_user"] = ModuleType("operators_of_a_user")

    def double(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    module.double = torch.library.custom_op("veriformer_test_replaced::double", double, mutates_args=())
    place = Place("operators_of_a_user:double", "attention")

    place.replace(there, [])

    ones = torch.ones(1)
    assert place.parameters == ["x"]
    assert module.double(ones)[0] == torch.ops.veriformer_test_replaced.double(ones)[0] == "stand-in"
    assert torch.ops.veriformer_test_replaced.double.default(ones)[0] == "stand-in"
    del sys.modules["operators_of_a_user"]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("no_such_module_here:attention", "--replaces: no_such_module_here does not import: ModuleNotFoundError"),
        ("kernels_of_a_user:no", "--replaces kernels_of_a_user:no: kernels_of_a_user has no 'no'"),
        ("kernels_of_a_user:__name__", "--replaces: expected something to call"),
    ],
)
def test_what_is_not_there_is_one_line(kernels, target, said):
    """Naming what was expected."""
    with pytest.raises(NotFound, match=said):
        Place(target, "attention")
