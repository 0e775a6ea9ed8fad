"""Our export of a model, called as its original is (see `originals`)."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from lightglue_ros.core.canvas import Canvas, CanvasBatch
from lightglue_ros.core.contract import EXTRACTOR, MATCHER
from lightglue_ros.core.pipeline import DEFAULT_MATCH_THRESHOLD
from lightglue_ros.core.session import GraphSession
from lightglue_ros.core.store import find_model
from lightglue_ros.errors import ModelError

Tensors = dict[str, np.ndarray]


class Exported:
    """Extractor and matcher on the CPU, with as many keypoints per image as there are slots.

    Threads spin within a run, as those of the originals and of peers.

    Args:
        model: a name in the store or a folder.
        num_threads: 0 is one per core.

    Raises:
        ModelError: there is no such model in the store or at that path, or it is not a split export.
    """

    def __init__(self, model: str | os.PathLike[str], num_threads: int = 0) -> None:
        files = find_model(model)
        if not files.is_split:
            raise ModelError(
                f"{files.pipeline} has no features to compare", fix="export it again with --split"
            )
        options = {"provider": "cpu", "num_threads": num_threads, "spin_threads": True}
        self._extractor = GraphSession(files.extractor, EXTRACTOR, **options)
        self._matcher = GraphSession(files.matcher, MATCHER, **options)
        self.info = self._matcher.info

    def place(self, images: Sequence[np.ndarray], image_size: tuple[int, int]) -> CanvasBatch:
        """Images on RGB canvases of that (width, height), as this model and its original want them."""
        return Canvas(image_size, 3, self.info.divisor).place(images)

    def extract(self, batch: CanvasBatch) -> Tensors:
        """Features of all images in one run: the outputs of the extractor, and image_sizes."""
        slots = np.array([self.info.max_keypoints], np.int64)
        outputs = self._extractor.run(vars(batch) | {"max_keypoints": slots})
        return outputs | {"image_sizes": batch.image_sizes}

    def match(self, features: Tensors, pairs: np.ndarray) -> Tensors:
        """Matches of the pairs, int64 [P, 2], in one run: the outputs of the matcher."""
        threshold = np.array([DEFAULT_MATCH_THRESHOLD], np.float32)
        return self._matcher.run(features | {"pairs": pairs, "match_threshold": threshold})
