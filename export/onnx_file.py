"""One graph of the contract, traced and written to an .onnx file with its metadata."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import onnx
import torch

from lightglue_ros.core.contract import INPUTS, OUTPUTS, GraphInfo
from lightglue_ros.errors import ModelError
from lightglue_ros.export import tensorrt
from lightglue_ros.export.assembly import assemble
from lightglue_ros.export.graphs import Graph, tensor_specs
from lightglue_ros.export.tracing import Free, trace

MIN_ONNXRUNTIME = "1.20"
MIN_ONNXRUNTIME_OF_OPSET = {22: "1.21", 23: "1.23"}
MIN_ONNXRUNTIME_WITH_DEFORM_CONV = "1.25"


def write_graph(module: Graph, info: GraphInfo, opset: int, path: Path) -> None:
    """Trace a graph and write it to a file; TensorRT and the ONNX Runtime version are added to its metadata.

    Raises:
        ModelError: this PyTorch cannot trace the graph.
    """
    trace_part = partial(trace, opset=opset, target=info.target)
    try:
        parts = module.parts(tensor_specs(info))
        if len(parts) == 1:
            model = trace_part(parts[0])
        else:
            model = assemble(parts, INPUTS[info.graph], OUTPUTS[info.graph], trace_part)
    except Exception as error:
        raise ModelError(
            f"PyTorch {torch.__version__} cannot export {info.graph}: {first_line(error)}",
            fix="pip install 'torch==2.13.*' 'onnxscript>=0.6'",
        ) from error
    _tidy(model, info)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type if it has no message."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _keep_shapes_of_added_maps(graph: onnx.GraphProto) -> None:
    """Remove the tracer's notes on shapes of tensors, except of maps [N, C, H, W] that are added.

    ONNX Runtime adds a map inside the convolution that computes the other map, if it knows that their shapes
    are equal. It does not know this behind strides of 4: then XFeat takes 0.1 ms longer for a VGA image.
    """
    added = {name for node in graph.node if node.op_type == "Add" for name in node.input}
    maps = [it for it in graph.value_info if it.name in added and len(it.type.tensor_type.shape.dim) == 4]
    del graph.value_info[:]
    graph.value_info.extend(maps)


def _tidy(model: onnx.ModelProto, info: GraphInfo) -> None:
    """Write the metadata, name the free axes and remove the tracer's notes on local source files."""
    (opset,) = (entry.version for entry in model.opset_import if not entry.domain)
    has_deform_conv = any(node.op_type == "DeformConv" for node in model.graph.node)
    minimum = MIN_ONNXRUNTIME_OF_OPSET.get(opset, MIN_ONNXRUNTIME)
    info = replace(
        info,
        # TensorRT 10 lists DeformConv, older Jetsons' versions lack it, and it was tried on neither.
        tensorrt=info.is_static and not has_deform_conv and not tensorrt.find_obstacles(model),
        min_onnxruntime=MIN_ONNXRUNTIME_WITH_DEFORM_CONV if has_deform_conv else minimum,
    )
    onnx.helper.set_model_props(model, info.to_metadata())
    _keep_shapes_of_added_maps(model.graph)
    model.graph.ClearField("metadata_props")
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    specs = tensor_specs(info)
    for value in (*model.graph.input, *model.graph.output):
        value.ClearField("metadata_props")
        for number, axis in enumerate(specs[value.name].axes):
            if isinstance(axis, Free):
                value.type.tensor_type.shape.dim[number].dim_param = axis.name
