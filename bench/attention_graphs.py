"""Writes the small graphs of bench/gpu_steps/attention.py: forms of attention and of top-K."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gpu_steps.attention import BATCH, FORMS, SCORES, SLOTS, TOP_K, Form

CHUNK = 15360  # scores; SCORES has 20 of them


def write_attention_graphs(folder: Path) -> None:
    """Write all forms in both precisions, and both top-Ks."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, form in FORMS.items():
        for precision, kind in (("fp32", TensorProto.FLOAT), ("fp16", TensorProto.FLOAT16)):
            onnx.save(attention_graph(form, kind), folder / f"{name}-{precision}.onnx")
    onnx.save(top_k_graph([SCORES[1]]), folder / "top_k_whole.onnx")
    onnx.save(top_k_graph([SCORES[1] // CHUNK, CHUNK]), folder / "top_k_chunks.onnx")


def attention_graph(form: Form, kind: int) -> onnx.ModelProto:
    """Make a graph of one attention; query, key and value as `Form.inputs` makes them."""
    scale = 1 / math.sqrt(form.width)
    names, opset, constants = ["query", "key", "value"], 18, []
    if form.operator == "MultiHeadAttention":
        shapes = [[BATCH, SLOTS, form.heads * width] for width in (form.key_width, form.key_width)]
        shapes.append([BATCH, SLOTS, form.heads * form.value_width])
        settings = {"num_heads": form.heads, "scale": scale, "domain": "com.microsoft"}
        nodes = [helper.make_node(form.operator, names, ["output"], **settings)]
        result = shapes[2]
    else:
        shapes = [[BATCH, form.heads, SLOTS, width] for width in (form.key_width, form.key_width)]
        shapes.append([BATCH, form.heads, SLOTS, form.value_width])
        result = shapes[2]
        if form.operator == "Attention":
            opset = 24
            inputs = [*names, "", "", "", "lengths"]
            nodes = [helper.make_node("Attention", inputs, ["output"], scale=scale)]
        else:
            number = np.array(scale, helper.tensor_dtype_to_np_dtype(kind))
            constants = [numpy_helper.from_array(number, "scale")]
            nodes = [
                helper.make_node("Transpose", ["key"], ["turned"], perm=[0, 1, 3, 2]),
                helper.make_node("Mul", ["query", "scale"], ["scaled"]),
                helper.make_node("MatMul", ["scaled", "turned"], ["logits"]),
                helper.make_node("Softmax", ["logits"], ["weights"], axis=-1),
                helper.make_node("MatMul", ["weights", "value"], ["output"]),
            ]
    inputs = [helper.make_tensor_value_info(*pair) for pair in zip(names, [kind] * 3, shapes, strict=True)]
    if form.operator == "Attention":
        inputs.append(helper.make_tensor_value_info("lengths", TensorProto.INT64, [BATCH]))
    return model(nodes, inputs, [helper.make_tensor_value_info("output", kind, result)], constants, opset)


def top_k_graph(shape: list[int]) -> onnx.ModelProto:
    """Make a top-K over all scores of an image, or over chunks and then over the best of each."""
    chunks = len(shape) > 1
    constants = [numpy_helper.from_array(np.array([TOP_K], np.int64), "k")]
    last, nodes = "scores", []
    if chunks:
        for name, wanted in (("split", [SCORES[0], *shape]), ("joined", [SCORES[0], -1])):
            constants.append(numpy_helper.from_array(np.array(wanted, np.int64), f"{name}_shape"))
        nodes = [
            helper.make_node("Reshape", ["scores", "split_shape"], ["split"]),
            helper.make_node("TopK", ["split", "k"], ["best", "places"]),
            helper.make_node("Reshape", ["best", "joined_shape"], ["joined"]),
        ]
        last = "joined"
    nodes.append(helper.make_node("TopK", [last, "k"], ["values", "indices"]))
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, SCORES)
    outputs = [
        helper.make_tensor_value_info("values", TensorProto.FLOAT, [SCORES[0], TOP_K]),
        helper.make_tensor_value_info("indices", TensorProto.INT64, [SCORES[0], TOP_K]),
    ]
    return model(nodes, [scores], outputs, constants, 18)


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: list[onnx.TensorProto],
    opset: int,
) -> onnx.ModelProto:
    """Make a model of nodes."""
    graph = helper.make_graph(nodes, "small", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)
