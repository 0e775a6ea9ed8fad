"""Forms of attention and of top-K: time, and error against float64, with keys masked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from gpu_steps.job import Checks, Job, OnDevice, Outcome, Tensors, median_ms, raw_session

BATCH, SLOTS, LENGTHS = 2, 1024, (1024, 512)
# Standard deviation of the logits: LightGlue's are usually small, and reach thousands.
LOGITS = {"small": 2.0, "large": 1000.0}
MOST_ERROR = {"fp16": 1e-2, "fp32": 1e-4}  # mean, with small logits
MASK = 200.0, -320.0  # of a query's and a key's mask channel, each a number of float16
TOP_K = 1024
SCORES = 2, 480 * 640


@dataclass(frozen=True)
class Form:
    """A way to compute masked attention.

    Attributes:
        heads: number of heads.
        width: numbers of a head.
        key_width: width of query and key in the graph, with the mask channel and zeros.
        value_width: width of the value in the graph, with zeros.
        operator: ``MultiHeadAttention``, ``Attention`` (opset 24) or ``MatMul``, written out.
    """

    heads: int
    width: int
    key_width: int
    value_width: int
    operator: str = "MultiHeadAttention"

    @property
    def has_channel(self) -> bool:
        """True if a channel of query and key masks."""
        return self.key_width > self.width

    def inputs(self, tensors: Tensors, precision: str) -> Tensors:
        """Bring query, key and value [B, heads, S, width] into the graph's form."""
        query, key, value = (tensors[name] for name in ("query", "key", "value"))
        if self.has_channel:
            mask = np.arange(SLOTS) >= np.array(LENGTHS)[:, None]
            channel = np.broadcast_to(mask[:, None, :, None] * MASK[1], (*key.shape[:3], 1))
            query = np.concatenate([query, np.full((*query.shape[:3], 1), MASK[0])], axis=-1)
            key = np.concatenate([key, channel], axis=-1)
        kind = np.float16 if precision == "fp16" else np.float32
        filled = {
            "query": widened(query, self.key_width),
            "key": widened(key, self.key_width),
            "value": widened(value, self.value_width),
        }
        if self.operator == "MultiHeadAttention":
            filled = {
                name: np.ascontiguousarray(array.transpose(0, 2, 1, 3)).reshape(BATCH, SLOTS, -1)
                for name, array in filled.items()
            }
        found = {name: array.astype(kind) for name, array in filled.items()}
        if self.operator == "Attention":
            found["lengths"] = np.array(LENGTHS, np.int64)
        return found

    def output(self, found: np.ndarray) -> np.ndarray:
        """Bring the graph's output into [B, heads, S, width]."""
        if self.operator == "MultiHeadAttention":
            found = found.reshape(BATCH, SLOTS, self.heads, -1).transpose(0, 2, 1, 3)
        return found[..., : self.width].astype(np.float64)


FORMS = {
    "65_64": Form(4, 64, 65, 64),
    "72_64": Form(4, 64, 72, 64),
    "72_72": Form(4, 64, 72, 72),
    "64_unmasked": Form(4, 64, 64, 64),
    "attention24": Form(4, 64, 64, 64, "Attention"),
    "written_out": Form(4, 64, 65, 64, "MatMul"),
    "xfeat_97_96": Form(1, 96, 97, 96),
    "xfeat_104_104": Form(1, 96, 104, 104),
}
TOP_KS = "whole", "chunks"


def checks(job: Job) -> Checks:
    """Yield a check of each form in each precision, and of each top-K, that the pack has."""
    for precision in ("fp16", "fp32"):
        for name in FORMS:
            if graph_of(job, f"{name}-{precision}").is_file():
                yield f"{name} {precision}", partial(attention, job, name, precision)
    for name in TOP_KS:
        if graph_of(job, f"top_k_{name}").is_file():
            yield f"top-K {name}", partial(top_k, job, name)


def graph_of(job: Job, name: str) -> Path:
    """Return a graph's file in the pack."""
    return job.pack / "attention" / f"{name}.onnx"


def attention(job: Job, name: str, precision: str) -> Outcome:
    """Time a form, and compare it with float64."""
    form, figures = FORMS[name], {}
    session = raw_session(job, graph_of(job, f"{name}-{precision}"))
    for logits, deviation in LOGITS.items():
        tensors = queries(form, deviation, precision)
        work = OnDevice(job, session, form.inputs(tensors, precision))
        figures |= {"median_ms": median_ms(work, job.part(0.05))["median_ms"]}
        found = form.output(work.outputs()[0])
        expected = in_float64(form, tensors)
        figures[f"error_{logits}"] = float(np.abs(found - expected).max())
        figures[f"mean_error_{logits}"] = float(np.abs(found - expected).mean())
    is_finite = bool(np.isfinite(list(figures.values())).all())
    return Outcome(is_finite and figures["mean_error_small"] < MOST_ERROR[precision], figures)


def queries(form: Form, deviation: float, precision: str) -> Tensors:
    """Random query, key and value [B, heads, S, width], rounded to the precision."""
    random = np.random.default_rng(0)
    shape = BATCH, form.heads, SLOTS, form.width
    # A logit is the sum of `width` products, divided by the square root of the width.
    factor = np.sqrt(deviation)
    tensors = {name: random.standard_normal(shape) for name in ("query", "key", "value")}
    tensors["query"], tensors["key"] = factor * tensors["query"], factor * tensors["key"]
    kind = np.float16 if precision == "fp16" else np.float32
    return {name: array.astype(kind).astype(np.float64) for name, array in tensors.items()}


def in_float64(form: Form, tensors: Tensors) -> np.ndarray:
    """Compute the attention in float64."""
    logits = tensors["query"] @ tensors["key"].swapaxes(-1, -2) / np.sqrt(form.width)
    if form.has_channel or form.operator == "Attention":
        mask = np.arange(SLOTS) >= np.array(LENGTHS)[:, None]
        logits = np.where(mask[:, None, None, :], -np.inf, logits)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True) @ tensors["value"]


def top_k(job: Job, name: str) -> Outcome:
    """Time a top-K over all pixels of two images, and compare its values."""
    scores = np.random.default_rng(0).random(SCORES, np.float32)
    work = OnDevice(job, raw_session(job, graph_of(job, f"top_k_{name}")), {"scores": scores})
    figures = median_ms(work, job.part(0.05))
    expected = -np.sort(-scores, axis=1)[:, :TOP_K]
    return Outcome(np.array_equal(work.outputs()[0], expected), figures)


def widened(array: np.ndarray, width: int) -> np.ndarray:
    """Fill up the last axis with zeros."""
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, width - array.shape[-1])])
