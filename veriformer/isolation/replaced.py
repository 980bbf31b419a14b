"""A function of a user's, replaced wherever it is looked up, and put to work: by a watch on the kernel itself, or by a stand-in.

A function written in Python is given another body: every reference to it, `from m import f` among them, closures, registries and
partial applications, then calls the replacement. Anything else (a built-in, a `torch.library` operator, an object that can be
called) is replaced by name in every module and class that holds it, in their lists and dicts, and among `torch.ops`.

Stands alone, as everything in the process of a user's tests does.
"""

import inspect
import sys
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

_CALL = "_veriformer_replacement"


class NotFound(Exception):
    """What is to be replaced is not there, or cannot be called; in one line."""


class Place:
    """What a name like `my_package.kernels:attention` or `torch.ops.my_library:attention` stands for, and how to call it."""

    def __init__(self, target: str, step: str) -> None:
        module, _, attribute = target.partition(":")
        self.owner = _module(module)
        names = attribute.split(".")
        for name in names[:-1]:
            self.owner = _attribute(self.owner, name, target)
        self.name = names[-1]
        self.thing = _attribute(self.owner, self.name, target)
        if inspect.isclass(self.thing) and not issubclass(self.thing, types.FunctionType):
            self.owner, self.name = self.thing, _method_of(self.thing, step, target)
            self.thing = getattr(self.owner, self.name)
        if not callable(self.thing):
            raise NotFound(f"--replaces: expected something to call, got {target} of type {type(self.thing).__name__}")
        self.takes_self = inspect.isclass(self.owner) and inspect.isfunction(inspect.getattr_static(self.owner, self.name))
        self.original: Callable[..., Any] = self.thing

    @property
    def parameters(self) -> list[str] | None:
        """The names of its arguments, without the object that a method is of; None where they cannot be read."""
        if (schema := _schema(self.thing)) is not None:
            return [argument.name for argument in schema.arguments]
        try:
            found = list(inspect.signature(self.thing).parameters.values())
        except (TypeError, ValueError):
            return None
        if any(each.kind is each.VAR_POSITIONAL for each in found):
            return None
        names = [each.name for each in found if each.kind is not each.VAR_KEYWORD]
        return names[1:] if self.takes_self else names

    @property
    def all_axes(self) -> bool:
        """Whether it is of all axes where none is named, as NumPy's functions are: its default is None."""
        try:
            found = inspect.signature(self.thing).parameters
        except (TypeError, ValueError):
            return False
        return any(found[name].default is None for name in ("dim", "axis") if name in found)

    def replace(self, replacement: Callable[..., Any], others: Iterable[dict[str, Any]]) -> None:
        """Have every call go to `replacement(*args, **kwargs)`; `original` is the kernel as it was.

        `others` are dicts that may hold it too: the parameters of collected tests.
        """
        if isinstance(self.thing, types.FunctionType):
            self.original = _given_another_body(self.thing, replacement)
            return
        stand_in = _Object(self.thing, replacement)
        with warnings.catch_warnings():  # some modules warn when they are looked at
            warnings.simplefilter("ignore")
            _replace_by_identity(self.thing, stand_in, others)
        setattr(self.owner, self.name, stand_in)
        for namespace, name in _operators(self.thing):
            setattr(namespace, name, stand_in)


def _module(name: str) -> Any:
    if name.startswith("torch.ops."):
        thing: Any = __import__("torch").ops
        for part in name.split(".")[2:]:
            thing = getattr(thing, part)
        return thing
    try:
        __import__(name)
    except Exception as error:
        raise NotFound(f"--replaces: {name} does not import: {type(error).__name__}: {_line(error)}") from None
    return sys.modules[name]


def _attribute(owner: Any, name: str, target: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError:
        raise NotFound(f"--replaces {target}: {getattr(owner, '__name__', owner)!s} has no {name!r}") from None


def _method_of(thing: type, step: str, target: str) -> str:
    for name in (step, "forward", "__call__"):
        if inspect.isfunction(inspect.getattr_static(thing, name, None)):
            return name
    raise NotFound(f"--replaces {target}: the class has neither {step}, forward nor __call__")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


# ---- a function in Python ----


def _given_another_body(function: types.FunctionType, replacement: Callable[..., Any]) -> Callable[..., Any]:
    """Swap the function's code; what it was before is returned as another function."""
    was = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    was.__kwdefaults__, was.__dict__, was.__qualname__ = function.__kwdefaults__, dict(function.__dict__), function.__qualname__
    signature = inspect.signature(function)
    function.__code__ = _body(function.__code__.co_freevars).replace(co_name=function.__name__, co_filename=__file__)
    function.__defaults__, function.__kwdefaults__ = None, {_CALL: replacement}
    function.__signature__ = signature  # type: ignore[attr-defined] (as before, for whoever asks)
    return was


def _body(free: tuple[str, ...]) -> types.CodeType:
    """Code that calls the replacement, with free variables of these names: a function keeps its cells."""
    uses = f"        if False: {', '.join(free)}\n" if free else ""
    made = f"def make({', '.join(free)}):\n    def body(*args, {_CALL}, **kwargs):\n{uses}        return {_CALL}(*args, **kwargs)\n"
    scope: dict[str, Any] = {}
    exec(made + "    return body\n", scope)  # noqa: S102 (our own text)
    body: types.FunctionType = scope["make"](*free)
    return body.__code__


# ---- anything else that can be called ----


class _Object:
    """What stands where an object stood: calls go to the replacement, everything else to the object."""

    def __init__(self, thing: Any, replacement: Callable[..., Any]) -> None:
        self.__wrapped__ = thing
        self._replacement = replacement

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._replacement(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return self if name == "default" else getattr(self.__wrapped__, name)


def _replace_by_identity(thing: Any, stand_in: Any, others: Iterable[dict[str, Any]]) -> None:
    for module in list(sys.modules.values()):
        names = getattr(module, "__dict__", None)
        if not isinstance(names, dict) or module is sys.modules[__name__]:
            continue
        _in_container(names, thing, stand_in)
        for value in list(names.values()):
            if inspect.isclass(value):
                for name in [name for name, each in vars(value).items() if each is thing]:
                    setattr(value, name, stand_in)
            elif type(value) in (dict, list):
                _in_container(value, thing, stand_in)
    for held in others:
        _in_container(held, thing, stand_in)


def _in_container(held: Any, thing: Any, stand_in: Any) -> None:
    pairs = list(held.items()) if isinstance(held, dict) else list(enumerate(held))
    for key, value in pairs:
        if value is thing:
            held[key] = stand_in


def _schema(thing: Any) -> Any:
    """What PyTorch knows of the arguments of an operator; None for anything else."""
    overload = getattr(thing, "_opoverload", None) or getattr(thing, "default", None)
    return getattr(overload, "_schema", None)


def _operators(thing: Any) -> Iterator[tuple[Any, str]]:
    """Where `torch.ops` has the operator that `torch.library.custom_op` made."""
    name = getattr(thing, "_qualname", None)
    if isinstance(name, str) and "::" in name:
        namespace, _, operator = name.partition("::")
        yield getattr(__import__("torch").ops, namespace), operator
