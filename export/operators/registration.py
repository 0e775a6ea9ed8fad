"""Operators that PyTorch lacks, or that its tracer turns into slow or unsupported ONNX operators.

An operator has a PyTorch function, a fake that gives the tracer the shape of its result, and a standard ONNX
form. Where another form is faster on CPUs or on GPUs, such as an operator of ONNX Runtime's own, there is an
ONNX form for that target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx
import torch
from onnxscript.values import Op, Opset

NAMESPACE = "lightglue_ros"
INTEGER, FLOAT = onnx.defs.OpSchema.AttrType.INT, onnx.defs.OpSchema.AttrType.FLOAT

# By target and operator. Portable exports have the standard forms only.
_FORMS: dict[str, dict[str, Callable]] = {"portable": {}, "cpu": {}, "gpu": {}}


def operator(fake: Callable) -> Callable[[Callable], torch.library.CustomOpDef]:
    """Register the decorated function as PyTorch operator; `fake` creates an empty result for its inputs."""

    def register(function: Callable) -> torch.library.CustomOpDef:
        made = torch.library.custom_op(f"{NAMESPACE}::{function.__name__}", function, mutates_args=())
        made.register_fake(fake)
        return made

    return register


def onnx_form(name: str, *, target: str = "portable") -> Callable[[Callable], Callable]:
    """Register the decorated onnxscript function as an operator's standard form, or its form for a target."""

    def register(form: Callable) -> Callable:
        _FORMS[target][name] = form
        return form

    return register


def onnx_forms(target: str) -> dict[Callable, Callable]:
    """Return the `custom_translation_table` for `torch.onnx.export`: a target's forms, else the standard."""
    forms = _FORMS["portable"] | _FORMS[target]
    operators = getattr(torch.ops, NAMESPACE)
    return {getattr(operators, name).default: form for name, form in forms.items()}


def onnxruntime_operator(name: str, inputs: Sequence[str], output: str = "T0", **attributes: Any) -> Op:
    """Describe an operator of ONNX Runtime's own domain with one output (its docs/ContribOperators.md).

    A question mark after an input's name marks it as optional. By default the output has the type of the
    first input.
    """
    kinds = onnx.defs.OpSchema.FormalParameterOption
    parameters = [
        onnx.defs.OpSchema.FormalParameter(
            it.rstrip("?"), f"T{number}", param_option=kinds.Optional if it.endswith("?") else kinds.Single
        )
        for number, it in enumerate(inputs)
    ]
    types = ["tensor(float)", "tensor(float16)", "tensor(int64)", "tensor(uint8)", "tensor(int8)"]
    schema = onnx.defs.OpSchema(
        name,
        "com.microsoft",
        1,
        inputs=parameters,
        outputs=[onnx.defs.OpSchema.FormalParameter("output", output)],
        type_constraints=[(parameter.type_str, types, "") for parameter in parameters],
        attributes=[onnx.defs.OpSchema.Attribute(it, kind) for it, kind in attributes.items()],
    )
    return Op(Opset("com.microsoft", 1), name, schema)


matmul_integer_to_float = onnxruntime_operator(
    "MatMulIntegerToFloat",
    ("A", "B", "a_scale", "b_scale", "a_zero_point?", "b_zero_point?", "bias?"),
    output="tensor(float)",
)
