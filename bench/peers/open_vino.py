"""OpenVINO on the same weights, on the very graphs that ONNX Runtime runs.

It is told to compute in float32, or on a processor that has bfloat16 it would choose that unasked.
"""

# A machine without OpenVINO has nothing to look up.
# pyright: reportMissingImports=false

from functools import partial
from typing import Any

import numpy as np
import openvino
import torch

from bench.peers.onnx_graphs import arguments_of, model_of
from bench.timer import Built
from bench.workloads import Workload
from properties.inputs.parameters import Call

UNTIMED = "unknown"  # how it calls what has no kernel: inputs, outputs, constants, changes of shape


class OpenVino:
    """OpenVINO's runtime, float32 on the CPU."""

    name = "openvino"

    def build(self, workload: Workload, calls: list[Call], dtype: str, device: str) -> Built:
        """A request to the model compiled for this step at these sizes. Raises NotOffered for another dtype or device."""
        model = model_of(workload, calls, dtype, device, self.name)
        core = openvino.Core()
        compiled = core.compile_model(
            core.read_model(model.SerializeToString()),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "f32",
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "NUM_STREAMS": 1,
                "ENABLE_CPU_PINNING": False,  # the cores it would choose may be those others are timed on
            },
        )
        version = openvino.__version__.partition("-")[0]
        really = f"openvino {version}, {', '.join(_kernels(compiled))}"
        return Built(partial(_run, compiled.create_infer_request()), arguments_of(calls), really, dtype, keeps_memory=True)


def _run(request: Any, *arrays: np.ndarray) -> np.ndarray:
    # the output is copied out of the request's own memory, as everybody else's is new; the inputs are read where they are
    return request.infer(list(arrays), share_inputs=True, share_outputs=False)[0]


def _kernels(compiled: Any) -> list[str]:
    """The kernels it chose, by its own names: jit_avx512_f32, gemm_mlas_f32, …; ref_… is its plain code for what it lacks."""
    nodes = (node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops())
    return sorted({name for node in nodes if not (name := node["primitiveType"].astype(str)).startswith(UNTIMED)})
