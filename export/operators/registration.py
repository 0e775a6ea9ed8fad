"""Operators that PyTorch lacks, or that its tracer turns into slow or unsupported ONNX operators.

An operator has a PyTorch function, a fake that gives the tracer the shape of its result, a standard ONNX form
and, where ONNX Runtime has a faster operator of its own, a fused ONNX form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx
import torch
from onnxscript.values import Op, Opset

NAMESPACE = "lightglue_ros"
INTEGER, FLOAT = onnx.defs.OpSchema.AttrType.INT, onnx.defs.OpSchema.AttrType.FLOAT

_STANDARD_FORMS: dict[str, Callable] = {}
_FUSED_FORMS: dict[str, Callable] = {}


def operator(fake: Callable) -> Callable[[Callable], torch.library.CustomOpDef]:
    """Register the decorated function as PyTorch operator; `fake` creates an empty result for its inputs."""

    def register(function: Callable) -> torch.library.CustomOpDef:
        made = torch.library.custom_op(f"{NAMESPACE}::{function.__name__}", function, mutates_args=())
        made.register_fake(fake)
        return made

    return register


def onnx_form(name: str, *, fused: bool = False) -> Callable[[Callable], Callable]:
    """Register the decorated onnxscript function as an operator's standard form, or its fused form."""

    def register(form: Callable) -> Callable:
        (_FUSED_FORMS if fused else _STANDARD_FORMS)[name] = form
        return form

    return register


def onnx_forms(*, fused: bool) -> dict[Callable, Callable]:
    """Return the `custom_translation_table` for `torch.onnx.export`, with fused forms if there are any."""
    forms = _STANDARD_FORMS | (_FUSED_FORMS if fused else {})
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
