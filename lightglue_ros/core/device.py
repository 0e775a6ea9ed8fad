"""Runs graphs on tensors that stay in a GPU's memory.

The images of a frame go up in one copy, and the results of all its graphs come down in one. Features lie
where the extractor wrote them, and the matcher reads them there. A copy of an image's features, for pairs
through time, has memory of its own, and is copied next to those of the present frame to be matched.

All runs and copies of a thread follow each other in one stream (see `provider_options`), and a run returns
before the GPU has done its work. So a frame waits for the GPU where its results come down, and nowhere else.
Masks, and settings of the matcher, such as pairs, go up when they change.

A run has fixed shapes, because cuDNN plans all its kernels again after a change of a shape. The tensors keep
their addresses as long as the shapes stay, because a CUDA graph replays a run with the addresses that the run
had.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lightglue_ros.core.canvas import CanvasBatch
from lightglue_ros.core.contract import EXTRACTOR, MATCHER, OUTPUTS, PIPELINE, GraphInfo
from lightglue_ros.core.device_memory import DESCRIPTORS, KEPT, Block, Shapes, Tensors
from lightglue_ros.core.features import Features, LazyFeatures

if TYPE_CHECKING:
    from lightglue_ros.core.session import GraphSession


_OF_IMAGES = {"image_sizes", *KEPT}


class DeviceRunner:
    """Sessions that run on the same device tensors; use it from one thread.

    Args:
        sessions: of an extractor, a matcher or both, or of a pipeline.
        device: where the tensors lie, ``cuda`` or ``cpu``.

    Attributes:
        has_fixed_shapes: True, because a change of a shape is slow.
    """

    has_fixed_shapes = True

    def __init__(self, sessions: Mapping[str, GraphSession], device: str = "cuda") -> None:
        self._sessions = sessions
        self._device = device
        self._info: GraphInfo = next(iter(sessions.values())).info
        self._tensors = Tensors(Shapes.of(self._info), self._info, device)
        self._extracted: weakref.ref[_Extracted] | None = None
        # Memory of kept features that nobody needs any more.
        self._unused: list[Block] = []

    @property
    def least_channels(self) -> int:
        """Least number of channels of a batch: grey images in the place of RGB do not change the shape."""
        return max(1, self._tensors.shapes.canvas[2])

    def allocate(self, shape: tuple[int, int, int, int]) -> np.ndarray:
        """Return the array that goes up to the device, for canvases uint8 [N, H, W, C] of the next run."""
        images, *canvas = shape
        return self._tensors_of(extracted=images, canvas=tuple(canvas)).frame.host["images"]

    def holds(self, features: Features) -> bool:
        """Return True if the features come from this runner."""
        return isinstance(features, LazyFeatures) and all(
            isinstance(source, (_Extracted, _Kept)) and source.unused is self._unused
            for source, _ in features.places
        )

    def extract(self, batch: CanvasBatch, max_keypoints: np.ndarray) -> LazyFeatures:
        """Begin to extract the images; the features come down from the device when they are asked for."""
        tensors = self._upload_frame(batch, max_keypoints)
        self._sessions[EXTRACTOR].run_on_device(tensors)
        extracted = _Extracted(tensors, batch, self._unused)
        self._extracted = weakref.ref(extracted)
        return LazyFeatures([(extracted, slot) for slot in range(len(batch.valid))])

    def match(
        self, features: Features, pairs: np.ndarray, threshold: np.ndarray, shape: tuple[int, int]
    ) -> dict[str, np.ndarray]:
        """Match pairs of images; return the outputs of the matcher for these pairs.

        Args:
            features: of the newest extraction, which the matcher reads where they lie, kept ones, which are
                copied next to them, or any others, which go up.
            pairs: int64 [p, 2], images of `features`.
            threshold: float32 [1], the input match_threshold.
            shape: (M, P) of the run; M is at least the number of images, P that of the pairs.
        """
        newest = self._newest()
        places = self._rows_of(features, newest, shape[0])
        extracted = self._tensors.shapes.extracted if places else 0
        images = max(shape[0], extracted, *(row + 1 for row in places))
        tensors = self._tensors_of(matched=images, pairs=shape[1])
        if isinstance(features, LazyFeatures) and places and self._newest() is not None:
            slots = np.array(places)[pairs]
            self._join_kept(features, places)
        else:
            # Features from elsewhere, or the first run with these numbers of images and pairs.
            slots = pairs
            self._upload_features(features)
        rows = self._upload_settings(slots, threshold)
        self._sessions[MATCHER].run_on_device(tensors)
        results = tensors.results.download()
        newest = self._newest()
        if newest is not None:
            newest.arrays.update(results)
        return {name: results[name][rows] for name in OUTPUTS[MATCHER]}

    def run_pipeline(
        self,
        batch: CanvasBatch,
        max_keypoints: np.ndarray,
        pairs: np.ndarray,
        threshold: np.ndarray,
        most: int,
    ) -> dict[str, np.ndarray]:
        """Match pairs of images by a pipeline.onnx with P = `most`; return its outputs for these pairs."""
        self._tensors_of(matched=len(batch.valid), pairs=most)
        tensors = self._upload_frame(batch, max_keypoints)
        rows = self._upload_settings(pairs, threshold)
        self._sessions[PIPELINE].run_on_device(tensors)
        results = tensors.results.download()
        return results | {name: results[name][rows] for name in OUTPUTS[MATCHER]}

    def _upload_frame(self, batch: CanvasBatch, max_keypoints: np.ndarray) -> Tensors:
        images, *canvas = batch.images.shape
        # Once there were masks, all later runs have the shape of masks.
        masked = self._tensors.shapes.masked or batch.masks.size > 1
        tensors = self._tensors_of(extracted=images, canvas=tuple(canvas), masked=masked)
        self._bring_down()
        for name, array in (vars(batch) | {"max_keypoints": max_keypoints}).items():
            host = tensors.frame.host.get(name)
            if host is not None and not np.may_share_memory(host, array):
                host[...] = array
        tensors.frame.upload()
        tensors.upload_masks(batch.masks)
        return tensors

    def _upload_features(self, features: Features) -> None:
        """Put features from the host in the place of extracted ones, because the addresses stay."""
        arrays = features.inputs()
        self._bring_down()
        tensors, count = self._tensors, len(arrays["keypoints"])
        tensors.settings.host["image_sizes"][:count] = arrays["image_sizes"]
        for block in (tensors.results, tensors.descriptors):
            for name in block.host.keys() & arrays.keys():
                block.host[name][:count] = arrays[name]
                block.host[name][count:] = 0
            block.upload()

    def _upload_settings(self, pairs: np.ndarray, threshold: np.ndarray) -> list[int]:
        """Upload the settings of the matcher if they have changed; return the row of each pair.

        Rows keep the pairs that they have if these are enough, so that nothing changes with a camera that
        comes and goes.
        """
        settings = self._tensors.settings
        wanted, held = pairs.tolist(), settings.host["pairs"]
        if any(pair not in held.tolist() for pair in wanted):
            held[...] = 0
            held[: len(wanted)] = pairs
        settings.host["match_threshold"][...] = threshold
        settings.upload_changes()
        rows = held.tolist()
        return [rows.index(pair) for pair in wanted]

    def _rows_of(self, features: Features, newest: _Extracted | None, matched: int) -> list[int]:
        """Find rows on the device for images of the newest extraction and kept ones.

        Returns:
            The row of each image; empty if there are others among them, or no rows for the kept ones.
        """
        if newest is None or not isinstance(features, LazyFeatures) or not self.holds(features):
            return []
        extracted = len(newest.valid)
        free = [*range(extracted, matched), *np.flatnonzero(~newest.valid)]
        rows: dict[int, int] = {}
        for source, _ in features.places:
            if isinstance(source, _Kept) and id(source) not in rows:
                if free:
                    rows[id(source)] = int(free.pop(0))
                elif self._info.is_static:
                    return []
                else:
                    rows[id(source)] = max(extracted, matched, 1 + max(rows.values(), default=0))
            elif isinstance(source, _Extracted) and source is not newest:
                return []
        return [rows.get(id(source), slot) for source, slot in features.places]

    def _join_kept(self, features: LazyFeatures, rows: list[int]) -> None:
        """Copy kept features next to those of the newest extraction, and set the sizes of all images."""
        tensors, sizes = self._tensors, self._tensors.settings.host["image_sizes"]
        for (source, slot), row in zip(features.places, rows, strict=True):
            sizes[row] = source.array("image_sizes")[slot]
            if isinstance(source, _Kept):
                source.copy_to(tensors, row)

    def _tensors_of(self, **changes: Any) -> Tensors:
        """Return the tensors for the present shapes with changes, newly made if there are any."""
        shapes = replace(self._tensors.shapes, **changes)
        if shapes != self._tensors.shapes:
            self._bring_down()
            self._tensors = Tensors(shapes, self._info, self._device)
        return self._tensors

    def _newest(self) -> _Extracted | None:
        return None if self._extracted is None else self._extracted()

    def _bring_down(self) -> None:
        """Bring the newest features down to the host, if somebody still has them, before others come."""
        newest = self._newest()
        if newest is not None:
            newest.bring_down()
        self._extracted = None


class _Extracted:
    """Features of one extraction, which lie on the device until somebody asks for them."""

    def __init__(self, tensors: Tensors, batch: CanvasBatch, unused: list[Block]) -> None:
        self.tensors: Tensors | None = tensors
        self.valid, self.image_sizes, self.unused = batch.valid, batch.image_sizes, unused
        self.arrays: dict[str, np.ndarray] = {"image_sizes": batch.image_sizes}

    def array(self, name: str) -> np.ndarray:
        """Return a tensor of all images, which comes down with the other tensors of its block."""
        if name not in self.arrays and self.tensors is not None:
            block = self.tensors.descriptors if name in DESCRIPTORS else self.tensors.results
            self.arrays.update(block.download())
        return self.arrays[name]

    def keep(self, slot: int) -> _Kept | None:
        """Copy an image's features to memory of their own on the device."""
        if self.tensors is None or self.tensors.copy is None:
            return None
        block = self.unused.pop() if self.unused else self.tensors.new_kept()
        for name in KEPT:
            address, size = self.tensors.image(name, slot)
            self.tensors.copy(block.address(name), address, size)
        known = {name: self.arrays[name][slot : slot + 1].copy() for name in _OF_IMAGES & self.arrays.keys()}
        return _Kept(block, known, self.unused)

    def bring_down(self) -> None:
        """Bring everything down to the host, because the device memory will be used again."""
        self.array("keypoints")
        self.array("descriptors")
        self.tensors = None


class _Kept:
    """Features of one image in device memory of their own, which no later image overwrites."""

    def __init__(self, block: Block, arrays: dict[str, np.ndarray], unused: list[Block]) -> None:
        self._block, self._arrays, self.unused = block, arrays, unused
        weakref.finalize(self, unused.append, block).atexit = False

    def array(self, name: str) -> np.ndarray:
        """Return a tensor of the image, which comes down with all others if it has not come before."""
        if name not in self._arrays:
            self._arrays.update(self._block.download())
        return self._arrays[name]

    def keep(self, slot: int) -> _Kept:
        """Return the same: nothing overwrites it."""
        return self

    def copy_to(self, tensors: Tensors, row: int) -> None:
        """Copy the features to a row of the tensors of a frame, on the device."""
        for name in KEPT:
            address, size = tensors.image(name, row)
            if tensors.copy is not None:
                tensors.copy(address, self._block.address(name), size)
