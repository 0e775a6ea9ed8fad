"""Exports a model when a command needs it for the first time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lightglue_ros.core.store import find_model
from lightglue_ros.errors import ModelError


def ensure_model(model: str, report: Callable[[str], None]) -> None:
    """Export a model that is not in the store yet, if the exporter is installed.

    Args:
        model: name in the store, folder or file.
        report: receives a line for each step of the export.

    Raises:
        ModelError: the model is missing and cannot be exported on this machine.
    """
    try:
        find_model(model)
    except ModelError:
        if Path(model).name != model or Path(model).suffix:
            raise
        try:
            from lightglue_ros.export import MODELS, export_model
        except ModelError as error:
            raise ModelError(
                f"no model '{model}' in the store, and it cannot be exported here: {error.what}",
                fix=f"lightglue_ros export {model} --split (on a machine with PyTorch; then copy the files)",
            ) from error
        if model not in MODELS:
            raise
        report(f"no model '{model}' in the store yet: exporting it, once")
        export_model(model, split=True, report=report)
