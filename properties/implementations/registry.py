"""The implementations the suite brings along, by name. Each is made when first asked for: torch is imported late.

Ours and torch's modules run in the suite's own process. Adapters of libraries run in a process of their own, as a user's
implementation does: a crash of a library is a verdict about it.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module, metadata
from importlib.util import find_spec
from inspect import getsource
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from properties.implementations.impl import Adapter

BUILT_IN: dict[str, str] = {
    "reference": "properties.implementations.reference:Reference",
    "optimized": "properties.implementations.optimized:Optimized",
    "optimized.inner_product": "properties.implementations.optimized:InnerProduct",
    "optimized.convolution": "properties.implementations.optimized:Convolution",
    "optimized.tuned": "properties.implementations.optimized:Tuned",
    "torch.sdpa": "properties.implementations.torch_functional:TorchFunctional",
    "torch.multi_head.train": "properties.implementations.torch_modules:MultiHeadTrain",
    "torch.multi_head.eval": "properties.implementations.torch_modules:MultiHeadEval",
    "torch.transformer.train": "properties.implementations.torch_modules:TransformerTrain",
    "torch.transformer.eval": "properties.implementations.torch_modules:TransformerEval",
}
"""name → module:class; the class takes no arguments and is an `Adapter`."""


class Library(NamedTuple):
    """An adapter of a library: file:class in `properties/implementations/libraries`, and the packages that it needs."""

    place: str
    package: str
    beside: tuple[str, ...] = ()


LIBRARIES: dict[str, Library] = {
    "torch.sdpa.math": Library("torch_sdpa.py:Math", "torch"),
    "torch.sdpa.flash": Library("torch_sdpa.py:Flash", "torch"),
    "torch.flex": Library("torch_flex.py:Eager", "torch"),
    "torch.flex.compiled": Library("torch_flex.py:Compiled", "torch"),
    "transformers.eager": Library("transformers_attention.py:Eager", "transformers"),
    "transformers.sdpa": Library("transformers_attention.py:Sdpa", "transformers"),
    "transformers.bart.eager": Library("transformers_attention.py:BartEager", "transformers"),
    "transformers.bart.sdpa": Library("transformers_attention.py:BartSdpa", "transformers"),
    "transformers.cache.dynamic": Library("transformers_cache.py:Dynamic", "transformers"),
    "transformers.cache.static": Library("transformers_cache.py:Static", "transformers"),
    "transformers.cache.sliding": Library("transformers_cache.py:Sliding", "transformers"),
    "transformers.cache.static_sliding": Library("transformers_cache.py:StaticSliding", "transformers"),
    "jax.attention": Library("jax_nn.py:Attention", "jax"),
    "onnx.attention_23": Library("onnx_attention.py:Reference23", "onnx"),
    "onnx.attention_24": Library("onnx_attention.py:Reference24", "onnx"),
    "onnxruntime.attention_23": Library("onnx_attention.py:Runtime23", "onnxruntime", ("onnx",)),
    "onnxruntime.attention_24": Library("onnx_attention.py:Runtime24", "onnxruntime", ("onnx",)),
    "openvino.attention": Library("openvino_attention.py:Attention", "openvino"),
    "mlx.attention": Library("mlx_fast.py:Attention", "mlx"),
    "x_transformers.attend": Library("x_transformers_attend.py:Attend", "x_transformers"),
    "x_transformers.flash": Library("x_transformers_attend.py:Flash", "x_transformers"),
}
"""name → adapter. None is imported, nor its library, before it is asked for by name; none is among the default cells."""

DEFAULT_CELLS: tuple[tuple[str, str], ...] = (
    ("reference", "float64"),
    *(("optimized", dtype) for dtype in ("float64", "float32", "bfloat16", "float16")),
    ("optimized.tuned", "float32"),  # and the two of oneDNN by night: packed weights differ in one product
    *((name, "float32") for name in BUILT_IN if name.startswith("torch.")),
    ("torch.sdpa", "bfloat16"),
    ("torch.multi_head.eval", "bfloat16"),
)
"""What the properties run on when no implementation is named: the suite's own test run."""


@cache
def built_in(name: str) -> "Adapter":
    """The implementation of that name. Raises KeyError for a name that is not in BUILT_IN."""
    module, _, attribute = BUILT_IN[name].partition(":")
    make: Callable[[], Adapter] = getattr(import_module(module), attribute)
    return make()


def built_in_missing(name: str) -> str:
    """Why that implementation cannot be had on this machine, in one line; "" where it can."""
    if name != "optimized.tuned":
        return ""
    from optimized import tuned

    return tuned.missing()


def library_class(name: str) -> Any:
    """The class of a library's adapter, which says what it offers without its library. Raises KeyError for another name."""
    file, _, attribute = LIBRARIES[name].place.partition(":")
    return getattr(import_module(f"properties.implementations.libraries.{Path(file).stem}"), attribute)


def library_target(name: str) -> str:
    """The same as a target for a process of its own. Raises KeyError for another name."""
    return str(Path(__file__).with_name("libraries") / LIBRARIES[name].place)


def library_lines(name: str) -> int:
    """How many lines the adapter has: its class, and those of its file that it comes from."""
    own = library_class(name)
    return sum(len(getsource(each).splitlines()) for each in own.__mro__ if each.__module__ == own.__module__)


def library_missing(name: str) -> tuple[str, ...]:
    """The packages it needs that are not installed. Raises KeyError for another name."""
    return tuple(package for package in (LIBRARIES[name].package, *LIBRARIES[name].beside) if find_spec(package) is None)


def installed_version(name: str) -> str:
    """The version of its package. Raises KeyError for another name, PackageNotFoundError where it is not installed."""
    return metadata.version(LIBRARIES[name].package)


def library_version(name: str) -> str:
    """The package and its version, or that it is not installed. Raises KeyError for another name."""
    if missing := library_missing(name):
        return f"{', '.join(missing)}: not installed"
    return f"{LIBRARIES[name].package} {installed_version(name).partition('+')[0]}"
