"""The table of libraries' conventions is held to the libraries themselves, where they are installed: the probes ask them."""

import numpy as np
import pytest

from properties.conventions.libraries import LIBRARIES, conventions_of
from properties.implementations.convention_probes import NO_ANSWER, PROBES, shown
from properties.implementations.conventions import CONVENTIONS, Conventions
from properties.implementations.impl import Impl
from properties.implementations.registry import built_in

OPEN = Conventions()


class Jax:
    """`jax.nn.dot_product_attention`, `jax.nn.softmax` and indexing; it has heads behind tokens."""

    name, arrays, dtypes, conventions = "jax", "numpy", ("float32",), None
    steps = frozenset({"attention", "mask", "softmax", "embedding"})

    def __init__(self) -> None:
        self.jax = pytest.importorskip("jax", reason="jax is not installed: pip install -e '.[jax]'")

    def attention(self, Q, K, V, mask=None, *, is_causal=False):
        b, h, n, m = *Q.shape[:3], K.shape[2]
        turned = (np.ascontiguousarray(X.swapaxes(1, 2)) for X in (Q, K, V))
        mask = None if mask is None else np.broadcast_to(mask, (b, h, n, m))
        return np.asarray(self.jax.nn.dot_product_attention(*turned, mask=mask, is_causal=is_causal)).swapaxes(1, 2).copy()

    def mask(self, n, m):
        Q, K, V = np.zeros((1, 1, n, m)), np.zeros((1, 1, m, m)), np.eye(m)[None, None]
        return self.attention(*(X.astype(np.float32) for X in (Q, K, V)), is_causal=True)[0, 0] > 0

    def softmax(self, scores):
        return np.array(self.jax.nn.softmax(scores))

    def embedding(self, tokens, *, table, scale=True):
        return np.array(self.jax.numpy.asarray(table)[tokens] * (np.float32(table.shape[1] ** 0.5) if scale else 1))


class Onnx:
    """Operators of the standard, run by onnxruntime."""

    name, arrays, dtypes, conventions = "onnx", "numpy", ("float32",), None
    steps = frozenset({"attention", "mask", "softmax", "layer_norm", "embedding"})

    def __init__(self) -> None:
        self.onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[onnxruntime]'")
        self.runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install -e '.[onnxruntime]'")
        self.runtime.set_default_logger_severity(4)

    def _run(self, operator, *inputs, **attributes):
        helper, kind = self.onnx.helper, self.onnx.helper.np_dtype_to_tensor_dtype
        feed = {f"x{i}": np.ascontiguousarray(each) for i, each in enumerate(inputs)}
        node = helper.make_node(operator, list(feed), ["y"], **attributes)
        given = [helper.make_tensor_value_info(name, kind(each.dtype), each.shape) for name, each in feed.items()]
        graph = helper.make_graph([node], "one", given, [helper.make_tensor_value_info("y", kind(np.dtype("float32")), None)])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
        return self.runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed)[0]

    def attention(self, Q, K, V, mask=None):
        return self._run("Attention", Q, K, V, *(() if mask is None else (np.broadcast_to(mask, (Q.shape[2], K.shape[2])),)))

    def mask(self, n, m):
        Q, K, V = (X.astype(np.float32) for X in (np.zeros((1, 1, n, 1)), np.zeros((1, 1, m, 1)), np.eye(m)[None, None]))
        return self._run("Attention", Q, K, V, is_causal=1)[0, 0] > 0

    def softmax(self, scores):
        return self._run("Softmax", scores, axis=-1)

    def layer_norm(self, X, *, gain, bias, eps=1e-5):
        return self._run("LayerNormalization", X, gain, bias, axis=-1, epsilon=eps)

    def embedding(self, tokens, *, table, scale=True):
        return self._run("Gather", table, tokens, axis=0) * (np.float32(table.shape[1] ** 0.5) if scale else np.float32(1))


def seen(impl: Impl, name: str) -> set[str | None]:
    """What every step of a library shows of a convention."""
    found = set()
    for step in filter(impl.offers, PROBES[name].steps):
        try:
            found.add(shown(impl.under(OPEN), name, step)[0])
        except NO_ANSWER:
            continue
    return found


@pytest.mark.parametrize(
    ("library", "made"), [("torch", lambda: built_in("torch.sdpa")), ("jax", Jax), ("onnx", Onnx)], ids=["torch", "jax", "onnx"]
)
def test_a_library_does_what_the_table_says(library, made):
    """Each convention that one of its steps shows; at least masks, causal masks, fully masked rows and tokens are shown."""
    impl = Impl(made(), "float32")
    said = {name: choice for name, choice in conventions_of(library).items() if any(map(impl.offers, PROBES[name].steps))}

    found = {name: seen(impl, name) for name in said}

    assert {
        "mask_polarity",
        "causal_alignment",
        "fully_masked_row",
        "fully_masked_softmax",
        "non_finite_behind_mask",
        "out_of_range_token",
    } <= said.keys()
    for name, choice in said.items():
        assert choice in found[name], (name, choice, found[name])
        assert found[name] == {choice} or choice == CONVENTIONS[name].allows, (name, choice, found[name])


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_row_names_a_choice_and_its_source(library):
    """A library that says nothing is not in the table."""
    Conventions(**conventions_of(library))

    assert LIBRARIES[library]
    assert all(row.source for row in LIBRARIES[library].values())
