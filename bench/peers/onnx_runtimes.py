"""The runtimes that read the graphs of `onnx_graphs` on the CPU: ONNX Runtime (float32, int8) and OpenVINO (float32, bfloat16)."""

# A machine without them has nothing to look up.
# pyright: reportMissingImports=false

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch

from bench.peers.base import Built
from bench.peers.onnx_graphs import arguments_of, model_of
from bench.workloads import Workload
from properties.inputs.parameters import Call
from properties.verdicts import NotOffered

UNTIMED = "unknown"  # how OpenVINO calls what has no kernel: inputs, outputs, constants, changes of shape
OPEN_VINO = {
    "NUM_STREAMS": 1,
    "ENABLE_CPU_PINNING": False,  # the cores it would choose may be those others are timed on
}


PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}  # of OpenVINO, which else chooses bfloat16 where the processor has it


class OnnxRuntime:
    """ONNX Runtime."""

    name = "onnxruntime"

    def build(self, workload: Workload, calls: list[Call], dtype: str, device: str) -> Built:
        """A session for this step at these sizes. Raises NotOffered for another dtype or device."""
        import onnxruntime

        model = model_of(workload, calls, dtype, device, self.name, ("float32", "int8"))
        if dtype == "int8":
            model = _in_int8(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [value.name for value in model.graph.input]
        version = f"onnxruntime {onnxruntime.__version__}"
        return Built(partial(_run_session, session, names), arguments_of(calls), version, dtype, caching_allocator=True)


class OpenVino:
    """OpenVINO's runtime."""

    name = "openvino"

    def build(self, workload: Workload, calls: list[Call], dtype: str, device: str) -> Built:
        """A request to the model compiled for this step at these sizes. Raises NotOffered for another dtype or device."""
        import openvino

        core = openvino.Core()
        graph = model_of(workload, calls, dtype, device, self.name, tuple(PRECISIONS))
        if dtype == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise NotOffered("openvino has no products of bfloat16 on this processor")
        settings = {**OPEN_VINO, "INFERENCE_PRECISION_HINT": PRECISIONS[dtype], "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        compiled = core.compile_model(core.read_model(graph.SerializeToString()), "CPU", settings)
        dispatched = f"openvino {openvino.__version__.partition('-')[0]}, {', '.join(_kernels(compiled))}"
        request = partial(_run_request, compiled.create_infer_request())
        return Built(request, arguments_of(calls), dispatched, dtype, caching_allocator=True)


def _in_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Its matrices in int8 with a scale for each column, the inputs of products rounded as they come: ONNX Runtime's own way."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with TemporaryDirectory() as folder:
        file = Path(folder) / "int8.onnx"
        quantize_dynamic(
            model,
            file,
            ["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        return onnx.load(file)


def _run_session(session: Any, names: list[str], *arrays: np.ndarray) -> Any:
    return session.run(None, dict(zip(names, arrays, strict=True)))[0]


def _run_request(request: Any, *arrays: np.ndarray) -> np.ndarray:
    # the output is copied out of the request's own memory, as every other peer's is new; the inputs are read where they are
    return request.infer(list(arrays), share_inputs=True, share_outputs=False)[0]


def _kernels(compiled: Any) -> list[str]:
    """The kernels it chose, by its own names: jit_avx512_f32, gemm_mlas_f32, …; ref_… is its plain code for what it lacks."""
    nodes = (node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops())
    return sorted({name for node in nodes if not (name := node["primitiveType"].astype(str)).startswith(UNTIMED)})
