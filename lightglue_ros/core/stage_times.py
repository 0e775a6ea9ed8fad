"""Where the time of a pipeline goes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields


@dataclass
class StageTimes:
    """Seconds spent in each stage.

    Attributes:
        canvas: resizing and letterboxing.
        extract: inside ONNX Runtime, images to features.
        match: inside ONNX Runtime, features to matches; with a pipeline.onnx images to matches.
        unpad: dropping the padding.
        refine: refining the matches, in `MatchPipeline.match`.
    """

    canvas: float = 0.0
    extract: float = 0.0
    match: float = 0.0
    unpad: float = 0.0
    refine: float = 0.0

    @property
    def inference(self) -> float:
        """Seconds inside ONNX Runtime."""
        return self.extract + self.match

    def __sub__(self, before: StageTimes) -> StageTimes:
        return StageTimes(*(getattr(self, it.name) - getattr(before, it.name) for it in fields(self)))

    @contextmanager
    def measured(self, stage: str) -> Iterator[None]:
        """Add the duration of a block to a stage."""
        start = time.perf_counter()
        yield
        setattr(self, stage, getattr(self, stage) + time.perf_counter() - start)


class ThreadTimes(threading.local):
    """Times of the calling thread: while it extracts, another one may match."""

    def __init__(self) -> None:
        self.times = StageTimes()
