"""The adapters of libraries: each calls its library, with the arguments it was given, and says so in few lines."""

import ast
import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from properties.implementations import registry
from properties.implementations.registry import LIBRARIES, Library, library_class, library_missing, library_target
from properties.steps import OPTIONS, option_name
from veriformer.cli import main
from veriformer.isolation.proxy import ImplementationProxy

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "properties/implementations/libraries").glob("[a-z]*.py"))
SDPA = "torch.nn.functional:scaled_dot_product_attention"

CALLS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "torch.sdpa.math": (SDPA, {"causal": True, "scale": 0.5}, {"is_causal": True, "scale": 0.5, "enable_gqa": True}),
    "torch.sdpa.flash": (SDPA, {"causal": True, "scale": 0.5}, {"is_causal": True, "scale": 0.5, "enable_gqa": True}),
    "torch.flex": ("properties.implementations.libraries.torch_flex:Eager.flex", {"scale": 0.5}, {}),
    "torch.flex.compiled": ("torch:compile", {}, {"dynamic": True}),
    "transformers.eager": (
        "transformers.models.llama.modeling_llama:eager_attention_forward",
        {"scale": 0.5},
        {"scaling": 0.5, "dropout": 0.0},
    ),
    "transformers.sdpa": (SDPA, {"causal": True, "scale": 0.5}, {"is_causal": True, "scale": 0.5}),
    "transformers.bart.eager": ("transformers.models.bart.modeling_bart:eager_attention_forward", {}, {"dropout": 0.0}),
    "transformers.bart.sdpa": (SDPA, {}, {"is_causal": False}),
    **{
        f"transformers.cache.{name}": (f"transformers.cache_utils:{layer}.update", {}, {})
        for name, layer in (
            ("dynamic", "DynamicLayer"),
            ("static", "StaticLayer"),
            ("sliding", "DynamicSlidingWindowLayer"),
            ("static_sliding", "StaticSlidingWindowLayer"),
        )
    },
    "jax.attention": (
        "jax.nn:dot_product_attention",
        {"causal": True, "scale": 0.5, "window": (1, 2)},
        {"is_causal": True, "scale": 0.5, "local_window_size": (1, 2)},
    ),
    "onnx.attention_23": ("onnx.reference:ReferenceEvaluator", {"causal": True, "scale": 0.5, "softcap": 2.0}, {}),
    "onnx.attention_24": ("onnx.reference:ReferenceEvaluator", {"causal": True, "scale": 0.5, "softcap": 2.0}, {}),
    "onnxruntime.attention_23": ("onnxruntime:InferenceSession", {"causal": True, "scale": 0.5, "softcap": 2.0}, {}),
    "onnxruntime.attention_24": ("onnxruntime:InferenceSession", {"causal": True, "scale": 0.5, "softcap": 2.0}, {}),
    "openvino.attention": (
        "openvino.opset13:scaled_dot_product_attention",
        {"causal": True, "scale": 0.5},
        {"causal": True, "scale": 0.5},
    ),
    "mlx.attention": (
        "mlx.core.fast:scaled_dot_product_attention",
        {"causal": True, "scale": 0.5},
        {"scale": 0.5, "mask": "causal"},
    ),
    "x_transformers.attend": (
        "x_transformers.attend:Attend.forward",
        {"causal": True, "scale": 0.5, "softcap": 2.0},
        {"mask": None},
    ),
    "x_transformers.flash": (SDPA, {"causal": True}, {"is_causal": True}),
}
"""name → the library's function, the options asked for, and arguments that it must be seen to be called with."""

OTHERS = ("transformers.bart", "transformers.cache", "torch.flex.compiled")
ATTENTION = {name: call for name, call in CALLS.items() if not name.startswith(OTHERS)}
CACHES = [name for name in CALLS if name.startswith(("transformers.cache", "onnx"))]


def installed(name: str) -> None:
    """Skip, with the reason, where its library is not."""
    if missing := library_missing(name):
        pytest.skip(f"{' and '.join(missing)} not installed: pip install -e '.[libraries]'")


class Recorded:
    """A function of a library, which notes what it is called with and then does what it always did."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
        module, _, path = place.partition(":")
        owner = importlib.import_module(module)
        *within, attribute = path.split(".")
        for each in within:
            owner = getattr(owner, each)
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.settings: list[tuple[bool, bool]] = []
        original = getattr(owner, attribute)

        def note(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((args, kwargs))
            self.settings.append((torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()))
            return original(*args, **kwargs)

        is_static = isinstance(inspect.getattr_static(owner, attribute), staticmethod)
        monkeypatch.setattr(owner, attribute, staticmethod(note) if is_static else note)


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Q, K and V of two heads, K and V of one: every number another."""
    numbers = torch.linspace(-1.0, 1.0, 2 * 3 * 4 + 2 * 3 * 4)
    return numbers[:24].reshape(1, 2, 3, 4), numbers[24:36].reshape(1, 1, 3, 4), numbers[36:].reshape(1, 1, 3, 4)


@pytest.mark.parametrize("name", ATTENTION)
def test_an_adapter_calls_its_library_with_what_it_was_given(name, monkeypatch):
    """Once, with the options; and with Q as it was, where the library takes a tensor."""
    installed(name)
    place, options, expected = CALLS[name]
    recorded, (Q, K, V) = Recorded(monkeypatch, place), inputs()
    if "grouped_heads" not in library_class(name).options:
        K, V = K.expand(1, 2, 3, 4), V.expand(1, 2, 3, 4)

    found = library_class(name)().attention(Q, K, V, **options)

    assert found.shape == Q.shape
    assert found.dtype == Q.dtype
    ((args, kwargs),) = recorded.calls
    assert {argument: kwargs[argument] for argument in expected} == expected
    given = [each for each in args if isinstance(each, torch.Tensor)]
    assert not given or torch.equal(given[0], Q)


@pytest.mark.parametrize("name", ["onnx.attention_23", "onnx.attention_24", "onnxruntime.attention_23", "onnxruntime.attention_24"])
def test_a_graph_is_one_node_attention_of_its_opset(name, monkeypatch):
    """With the options as attributes."""
    installed(name)
    import onnx

    recorded = Recorded(monkeypatch, CALLS[name][0])

    library_class(name)().attention(*inputs(), causal=True, scale=0.5, softcap=2.0)

    (((model, *_), _),) = recorded.calls
    model = onnx.load_from_string(model) if isinstance(model, bytes) else model
    (node,) = model.graph.node
    assert (node.op_type, model.opset_import[0].version) == ("Attention", int(name[-2:]))
    assert {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute} == {
        "is_causal": 1,
        "scale": 0.5,
        "softcap": 2.0,
    }


@pytest.mark.parametrize(("name", "flags"), [("torch.sdpa.math", (False, True)), ("torch.sdpa.flash", (True, False))])
def test_torch_may_choose_no_other_kernel(name, flags, monkeypatch):
    """Of the CPU's two, one is allowed while it is called."""
    recorded = Recorded(monkeypatch, SDPA)

    library_class(name)().attention(*inputs())

    assert recorded.settings == [flags]


def test_flex_is_compiled_as_a_whole(monkeypatch):
    """torch.compile is given flex_attention itself; compiling it takes a minute, and is not done here."""
    from torch.nn.attention import flex_attention

    recorded = Recorded(monkeypatch, "torch:compile")

    library_class("torch.flex.compiled")()

    assert recorded.calls == [((flex_attention.flex_attention,), {"dynamic": True})]


@pytest.mark.parametrize("name", ["transformers.bart.eager", "transformers.bart.sdpa"])
def test_a_module_of_bart_calls_its_attention_once(name, monkeypatch):
    """With weights of identity the heads are slices of X."""
    installed(name)
    place, _, expected = CALLS[name]
    recorded, X = Recorded(monkeypatch, place), torch.linspace(-1.0, 1.0, 12).reshape(1, 3, 4)
    weights = {f"W_{each}": torch.eye(4) for each in "QKVO"} | {f"b_{each}": torch.zeros(4) for each in "QKVO"}

    found = library_class(name)().multi_head(X, X, h=2, **weights)

    assert found.shape == X.shape
    ((args, kwargs),) = recorded.calls
    assert {argument: kwargs[argument] for argument in expected} == expected
    (Q, *_) = (each for each in args if isinstance(each, torch.Tensor))
    assert torch.equal(Q, X.reshape(1, 3, 2, 2).transpose(1, 2))


@pytest.mark.parametrize("name", CACHES)
def test_a_cache_of_a_library_is_updated_with_each_chunk(name, monkeypatch):
    """With the new keys and values alone; what it knows of the others is in its own state, or is handed over as past."""
    installed(name)
    recorded, (Q, K, V) = Recorded(monkeypatch, CALLS[name][0]), inputs()
    K, V = K.expand(1, 2, 3, 4), V.expand(1, 2, 3, 4)
    cache = library_class(name)().attention_cache(K[:, :, :0], V[:, :, :0])

    found = torch.cat([cache.attend(*(X[:, :, part] for X in (Q, K, V))) for part in (slice(1), slice(1, 3))], dim=2)

    assert found.shape == Q.shape
    if "onnx" in name:
        assert len(recorded.calls) == 2  # a graph without a past, and one with
    else:
        assert [args[1].shape[2] for args, _ in recorded.calls] == [1, 2]


def test_every_library_has_a_call_of_its_own():
    """Nobody is registered who is not seen to be called."""
    assert CALLS.keys() == LIBRARIES.keys()


@pytest.mark.parametrize("name", LIBRARIES)
def test_an_adapter_says_without_its_library_what_it_offers(name):
    """Its options are parameters of its attention, or grouped heads, or what a class it comes from has; and it has no other."""
    made = library_class(name)
    parameters = [
        (each is made or step not in vars(made), option_name(step, parameter))
        for each in inspect.getmro(made)
        for step in ("attention", "attention_cache")
        if step in vars(each)
        for parameter in inspect.signature(vars(each)[step]).parameters
        if parameter in OPTIONS[step]
    ]
    options = set(getattr(made, "options", ()))

    assert options <= {option for _, option in parameters} | {"grouped_heads"}
    assert {option for own, option in parameters if own} <= options
    assert set(made.dtypes) <= {"float64", "float32", "bfloat16", "float16"}


@pytest.mark.parametrize("name", LIBRARIES)
def test_an_adapter_is_short(name):
    """At most forty lines, with the classes that it comes from."""
    assert registry.library_lines(name) <= 40


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_adapter_stands_alone(path):
    """Each class of its file has at most forty lines; it imports torch and NumPy at its head, and nothing of ours anywhere."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    heads = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    heads |= {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}
    everywhere = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)} | heads

    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 40, node.name
    assert {each.partition(".")[0] for each in heads} <= {"torch", "numpy", *sys.stdlib_module_names}
    assert not {each.partition(".")[0] for each in everywhere} & {"properties", "reference", "optimized", "veriformer", "bench"}


def test_no_library_is_imported_before_it_is_asked_for():
    """Not by the registry, nor by the list of implementations; and neither is torch's compiler, which takes longer than torch."""
    packages = sorted({library.package for library in LIBRARIES.values()} - {"torch"} | {"torch._dynamo"})
    code = (
        "import sys\nfrom veriformer.commands.list import implementations\nfound = implementations()\n"
        f"print([each for each in {packages!r} if each in sys.modules], len(found))"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["[]", str(len(registry.BUILT_IN) + len(LIBRARIES))]


def test_a_library_that_is_not_installed_is_one_line(monkeypatch, tmp_path):
    """Exit code 2 where it is named; the list says so."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(LIBRARIES, "jax.attention", Library("jax_nn.py:Attention", "no_such_package"))

    refused = CliRunner().invoke(main, ["card", "jax.attention"])
    listed = CliRunner().invoke(main, ["list", "implementations", "--json"])

    assert refused.exit_code == 2
    assert "jax.attention: no_such_package not installed; pip install -e '.[libraries]' brings it" in refused.output
    assert {each["name"]: each["library"] for each in json.loads(listed.output)}[
        "jax.attention"
    ] == "no_such_package: not installed"


def test_no_library_is_among_the_default_cells():
    """The suite's own run needs none of them."""
    assert not {name for name, _ in registry.DEFAULT_CELLS} & LIBRARIES.keys()


def test_a_library_runs_in_a_process_of_its_own():
    """Under its name; its answer is the one of the class."""
    with ImplementationProxy(library_target("torch.sdpa.math"), name="torch.sdpa.math") as proxy:
        Q, K, V = (each.double().numpy() for each in inputs())
        found = proxy.call("attention", (Q, K, V), {}, "float32")

    assert (proxy.name, proxy.isolated) == ("torch.sdpa.math", True)
    assert torch.equal(torch.from_numpy(found).float(), library_class("torch.sdpa.math")().attention(*inputs()))
