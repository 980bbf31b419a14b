"""ONNX's backend tests on its reference evaluator, as `onnx.backend.test` says that a backend runs them."""

from typing import Any

import numpy as np
import onnx.backend.test
from onnx.backend.base import Backend
from onnx.reference import ReferenceEvaluator


class Prepared:
    """A model, ready to run."""

    def __init__(self, model: Any) -> None:
        self.evaluator = ReferenceEvaluator(model)

    def run(self, inputs: Any, **_: Any) -> Any:
        """Its outputs."""
        return self.evaluator.run(None, dict(zip(self.evaluator.input_names, inputs, strict=True)))


class Reference(Backend):
    """The reference evaluator as a backend."""

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **_: Any) -> Any:
        """The model for this backend."""
        return Prepared(model)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """The CPU alone."""
        return device == "CPU"


np.random.seed(0)  # noqa: NPY002 (the tests draw their inputs while they are imported)
globals().update(onnx.backend.test.BackendTest(Reference, __name__).test_cases)  # type: ignore[arg-type]
