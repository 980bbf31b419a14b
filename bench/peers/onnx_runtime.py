"""ONNX Runtime on the same weights, on the graphs of `onnx_graphs`."""

# A machine without ONNX Runtime has nothing to look up.
# pyright: reportMissingImports=false

from functools import partial
from typing import Any

import numpy as np
import onnxruntime
import torch

from bench.peers.onnx_graphs import arguments_of, model_of
from bench.timer import Built
from bench.workloads import Workload
from properties.inputs.parameters import Call


class OnnxRuntime:
    """ONNX Runtime, float32 on the CPU."""

    name = "onnxruntime"

    def build(self, workload: Workload, calls: list[Call], dtype: str, device: str) -> Built:
        """A session for this step at these sizes. Raises NotOffered for another dtype or device."""
        model = model_of(workload, calls, dtype, device, self.name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [value.name for value in model.graph.input]
        really = f"onnxruntime {onnxruntime.__version__}"
        return Built(partial(_run, session, names), arguments_of(calls), really, dtype, keeps_memory=True)


def _run(session: onnxruntime.InferenceSession, names: list[str], *arrays: np.ndarray) -> Any:
    return session.run(None, dict(zip(names, arrays, strict=True)))[0]
