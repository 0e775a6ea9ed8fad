"""Registration of operators and of their ONNX forms."""

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


def operator(function: Callable) -> torch.library.CustomOpDef:
    """Register a function as the PyTorch operator ``lightglue_ros::NAME``."""
    return torch.library.custom_op(f"{NAMESPACE}::{function.__name__}", function, mutates_args=())


def onnx_form(name: str, *, fused: bool = False) -> Callable[[Callable], Callable]:
    """Register the decorated onnxscript function as an ONNX form of an operator.

    Args:
        name: the operator's name.
        fused: True if the form uses ONNX Runtime's own operators, False if it uses standard ONNX only.
    """

    def register(form: Callable) -> Callable:
        (_FUSED_FORMS if fused else _STANDARD_FORMS)[name] = form
        return form

    return register


def onnx_forms(*, fused: bool) -> dict[Callable, Callable]:
    """Return the `custom_translation_table` for `torch.onnx.export`.

    Args:
        fused: True to prefer fused forms, which only ONNX Runtime can run.
    """
    forms = _STANDARD_FORMS | (_FUSED_FORMS if fused else {})
    operators = getattr(torch.ops, NAMESPACE)
    return {getattr(operators, name).default: form for name, form in forms.items()}


def onnxruntime_operator(name: str, inputs: Sequence[str], output: str = "T0", **attributes: Any) -> Op:
    """Describe an operator of ONNX Runtime's own domain with one output (its docs/ContribOperators.md).

    Args:
        name: the operator's name.
        inputs: names of the inputs; a question mark at the end marks an optional input.
        output: type of the output; by default the type of the first input.
        attributes: type of each attribute.
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
