"""Runs of a graph whose tensors stay at the same addresses in the memory of a device.

A CUDA graph replays a run with the addresses that the run had. So inputs and outputs are bound once. Each run
copies its inputs to them and its outputs from them; images are copied as bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnxruntime as ort

_TYPES = {
    "tensor(bool)": np.bool_,
    "tensor(float)": np.float32,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
}


class CudaGraphRunner:
    """A session of a static export with memory of its own for all inputs and outputs.

    Args:
        session: of a graph with fixed shapes.
        device: the device that holds the tensors, ``cuda`` or ``cpu``.
    """

    def __init__(self, session: ort.InferenceSession, device: str) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._inputs = {it.name: _allocate(it, device) for it in session.get_inputs()}
        self._outputs = {it.name: _allocate(it, device) for it in session.get_outputs()}
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def run(self, tensors: Mapping[str, np.ndarray], options: ort.RunOptions) -> dict[str, np.ndarray]:
        """Run the graph on all its inputs, with its shapes and types; return copies of all outputs."""
        for name, value in self._inputs.items():
            value.update_inplace(np.ascontiguousarray(tensors[name]))
        self._session.run_with_iobinding(self._binding, options)
        return {name: np.array(value.numpy()) for name, value in self._outputs.items()}


def _allocate(tensor: ort.NodeArg, device: str) -> ort.OrtValue:
    from onnxruntime import OrtValue

    return OrtValue.ortvalue_from_shape_and_type(tensor.shape, _TYPES[tensor.type], device)
