"""The implementations the suite brings along, by name. Each is made when first asked for: torch is imported late."""

from collections.abc import Callable
from functools import cache
from importlib import import_module

from properties.implementations.impl import Adapter

BUILT_IN: dict[str, str] = {
    "reference": "properties.implementations.reference:Reference",
    "optimized": "properties.implementations.optimized:Optimized",
    "torch.sdpa": "properties.implementations.torch_functional:TorchFunctional",
    "torch.multi_head.train": "properties.implementations.torch_modules:MultiHeadTrain",
    "torch.multi_head.eval": "properties.implementations.torch_modules:MultiHeadEval",
    "torch.transformer.train": "properties.implementations.torch_modules:TransformerTrain",
    "torch.transformer.eval": "properties.implementations.torch_modules:TransformerEval",
}
"""name → module:class; the class takes no arguments and is an `Adapter`."""

DEFAULT_CELLS: tuple[tuple[str, str], ...] = (
    ("reference", "float64"),
    *(("optimized", dtype) for dtype in ("float64", "float32", "bfloat16", "float16")),
    *((name, "float32") for name in BUILT_IN if name.startswith("torch.")),
    ("torch.sdpa", "bfloat16"),
    ("torch.multi_head.eval", "bfloat16"),
)
"""What the properties run on when no implementation is named: the suite's own test run."""


@cache
def built_in(name: str) -> Adapter:
    """The implementation of that name. Raises KeyError for a name that is not in BUILT_IN."""
    module, _, attribute = BUILT_IN[name].partition(":")
    make: Callable[[], Adapter] = getattr(import_module(module), attribute)
    return make()
