"""Check of a graph's operators and their types against the list of operators that TensorRT supports.

Source: docs/operators.md of onnx/onnx-tensorrt for TensorRT 10.0 (main branch, June 2024), which supports
opsets 9 to 20. Only types that our graphs could hold are kept here.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto

LARGEST_OPSET = 20
LARGEST_TOP_K = 3840

_FLOAT = {TensorProto.FLOAT, TensorProto.FLOAT16}
_NUMBER = _FLOAT | {TensorProto.INT32, TensorProto.INT64}
_ANY = _NUMBER | {TensorProto.BOOL}
# Operators, grouped by the types that they support.
_OPERATORS = (
    (
        _FLOAT,
        "Acos Acosh Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Clip Conv ConvTranspose "
        "Cos Cosh CumSum DeformConv Dropout Einsum Elu Erf Exp Floor Gemm GlobalAveragePool GlobalLpPool "
        "GlobalMaxPool GridSample GroupNormalization GRU HardSigmoid HardSwish Hardmax ImageScaler "
        "InstanceNormalization IsInf LayerNormalization LeakyRelu Log LogSoftmax LRN LSTM LpNormalization "
        "LpPool MatMul MaxPool MeanVarianceNormalization Mish NonMaxSuppression NonZero ParametricSoftplus "
        "Pow PRelu QuantizeLinear RandomNormal RandomNormalLike RandomUniform RandomUniformLike Reciprocal "
        "Resize RNN RoiAlign Round ScaledTanh Scan Selu Sigmoid Sin Sinh Softmax Softplus Softsign Sqrt Tan "
        "Tanh ThresholdedRelu Upsample",
    ),
    (
        _NUMBER,
        "Abs Add ArgMax ArgMin DepthToSpace Div Equal Gelu Greater GreaterOrEqual IsNaN Less LessOrEqual Max "
        "Mean Min Mod Mul Neg Pad Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean "
        "ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Scatter ScatterElements ScatterND Shrink Sign "
        "SpaceToDepth Sub Sum TopK",
    ),
    (
        _ANY,
        "Concat Constant ConstantOfShape Expand EyeLike Flatten Gather GatherElements GatherND Identity If "
        "Loop OneHot Reshape ReverseSequence Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze "
        "Where",
    ),
    ({TensorProto.BOOL}, "And Not Or Xor"),
    (_ANY | {TensorProto.UINT8}, "Cast CastLike"),
)
SUPPORTED = {operator: types for types, operators in _OPERATORS for operator in operators.split()}


def find_obstacles(model: onnx.ModelProto) -> list[str]:
    """List what TensorRT does not support in a graph of fixed shapes, each entry once."""
    obstacles = dict.fromkeys(_find_in_nodes(onnx.shape_inference.infer_shapes(model, data_prop=True)))
    opset = max(entry.version for entry in model.opset_import if not entry.domain)
    if opset > LARGEST_OPSET:
        obstacles[f"opset {opset}"] = None
    return list(obstacles)


def _find_in_nodes(model: onnx.ModelProto) -> list[str]:
    graph = model.graph
    values = (*graph.input, *graph.value_info, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    shapes = {value.name: value.type.tensor_type.shape.dim for value in values}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    obstacles = []
    for node in graph.node:
        if node.domain:
            obstacles.append(f"{node.domain}.{node.op_type}")
        elif node.op_type not in SUPPORTED:
            obstacles.append(node.op_type)
        else:
            # The first input decides, because further inputs may be indices and shapes. The first input of
            # Where is its condition, so there the second decides.
            decisive = node.input[1 if node.op_type == "Where" else 0] if node.input else node.output[0]
            found = types[decisive]
            if found not in SUPPORTED[node.op_type]:
                obstacles.append(f"{node.op_type} of {TensorProto.DataType.Name(found)}")
        if node.op_type == "TopK" and shapes[node.output[0]][-1].dim_value > LARGEST_TOP_K:
            obstacles.append(f"TopK of more than {LARGEST_TOP_K}")
    return obstacles
