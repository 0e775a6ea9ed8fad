"""Runs graphs on tensors that stay in a GPU's memory.

The images of a frame go up in one copy, and the results of all its graphs come down in one. Features lie
where the extractor wrote them, and the matcher reads them there.

All runs and copies of a thread follow each other in one stream (see `provider_options`), and a run returns
before the GPU has done its work. So a frame waits for the GPU where its results come down, and nowhere else.
Settings of the matcher, such as pairs, go up when they change.

A run has fixed shapes, because cuDNN plans all its kernels again after a change of a shape. The tensors keep
their addresses as long as the shapes stay, because a CUDA graph replays a run with the addresses that the run
had.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lightglue_ros.core.canvas import CanvasBatch
from lightglue_ros.core.contract import EXTRACTOR, INPUTS, MATCHER, OUTPUTS, PIPELINE, GraphInfo
from lightglue_ros.core.features import Features, LazyFeatures
from lightglue_ros.core.providers import onnxruntime

if TYPE_CHECKING:
    import onnxruntime as ort

    from lightglue_ros.core.session import GraphSession

_Layout = Mapping[str, tuple[Any, str]]

# Types and shapes of the tensors, as in `contract`. N images are extracted and M are matched; R is the larger
# of the two. The tensors of a block are copied together.
_FRAME: _Layout = {
    "images": (np.uint8, "NHWC"),
    "sizes": (np.float32, "N2"),
    "scales": (np.float32, "N2"),
    "valid": (np.bool_, "N"),
    "max_keypoints": (np.int64, "1"),
}
_SETTINGS: _Layout = {
    "image_sizes": (np.float32, "M2"),
    "pairs": (np.int64, "P2"),
    "match_threshold": (np.float32, "1"),
}
_RESULTS: _Layout = {
    "keypoints": (np.float32, "RK2"),
    "keypoint_scores": (np.float32, "RK"),
    "keypoint_mask": (np.bool_, "RK"),
    "matches": (np.int32, "PK"),
    "match_scores": (np.float32, "PK"),
    "layers": (np.int32, "P"),
}
_DESCRIPTORS: _Layout = {"descriptors": (np.float32, "RKD")}

# Bytes. CUDA's own allocations begin at multiples of this.
_ALIGNMENT = 256


@dataclass(frozen=True)
class Shapes:
    """Numbers of images and pairs of a run, and its canvas; 0 where no run has told yet.

    Attributes:
        extracted: N, images of a run of the extractor.
        matched: M, images of a run of the matcher.
        pairs: P, pairs of a run of the matcher.
        canvas: (height, width, channels) of the images.
    """

    extracted: int = 0
    matched: int = 0
    pairs: int = 0
    canvas: tuple[int, int, int] = (0, 0, 0)

    @classmethod
    def of(cls, info: GraphInfo) -> Shapes:
        """Return the shapes of a static export, which no run may change, or zeros."""
        if info.batch is None or info.pairs is None or info.image_size is None or info.channels is None:
            return cls()
        width, height = info.image_size
        return cls(info.batch, info.batch, info.pairs, (height, width, info.channels))


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
        self._tensors = _Tensors(Shapes.of(self._info), self._info, device)
        self._extracted: weakref.ref[_Extracted] | None = None

    @property
    def least_channels(self) -> int:
        """Least number of channels of a batch: grey images in the place of RGB do not change the shape."""
        return max(1, self._tensors.shapes.canvas[2])

    def holds(self, features: Features) -> bool:
        """Return True if the features are those of the newest extraction."""
        return self._source_of(features) is not None

    def extract(self, batch: CanvasBatch, max_keypoints: np.ndarray) -> LazyFeatures:
        """Begin to extract the images; the features come down from the device when they are asked for."""
        tensors = self._upload_frame(batch, max_keypoints)
        self._sessions[EXTRACTOR].run_on_device(tensors)
        extracted = _Extracted(tensors, batch)
        self._extracted = weakref.ref(extracted)
        return LazyFeatures(extracted, range(len(batch.valid)))

    def match(
        self, features: Features, pairs: np.ndarray, threshold: np.ndarray, shape: tuple[int, int]
    ) -> dict[str, np.ndarray]:
        """Match pairs of images; return the outputs of the matcher for these pairs.

        Args:
            features: of the newest extraction, which the matcher reads where they lie, or any others.
            pairs: int64 [p, 2], images of `features`.
            threshold: float32 [1], the input match_threshold.
            shape: (M, P) of the run; M is at least the number of images, P that of the pairs.
        """
        extracted = self._source_of(features)
        if isinstance(features, LazyFeatures) and extracted is not None:
            slots = np.array(features.slots)[pairs]
            images = max(shape[0], len(extracted.valid))
        else:
            slots, images = pairs, shape[0]
        tensors = self._tensors_of(matched=images, pairs=shape[1])
        if extracted is None or extracted.tensors is not tensors:
            # Features from elsewhere or from the past, or the first run with this number of pairs.
            slots, extracted = pairs, None
            self._upload_features(features)
        else:
            tensors.settings.host["image_sizes"][: len(extracted.valid)][extracted.valid] = (
                extracted.image_sizes[extracted.valid]
            )
        rows = self._upload_settings(slots, threshold)
        self._sessions[MATCHER].run_on_device(tensors)
        results = tensors.results.download()
        if extracted is not None:
            extracted.arrays.update(results)
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

    def _upload_frame(self, batch: CanvasBatch, max_keypoints: np.ndarray) -> _Tensors:
        images, *canvas = batch.images.shape
        tensors = self._tensors_of(extracted=images, canvas=tuple(canvas))
        self._bring_down()
        for name, array in (vars(batch) | {"max_keypoints": max_keypoints}).items():
            if name in _FRAME:
                tensors.frame.host[name][...] = array
        tensors.frame.upload()
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

    def _source_of(self, features: Features) -> _Extracted | None:
        """Return the newest extraction if the features are of it."""
        newest = self._newest()
        return newest if isinstance(features, LazyFeatures) and features.source is newest else None

    def _tensors_of(self, **changes: Any) -> _Tensors:
        """Return the tensors for the present shapes with changes, newly made if there are any."""
        shapes = replace(self._tensors.shapes, **changes)
        if shapes != self._tensors.shapes:
            self._bring_down()
            self._tensors = _Tensors(shapes, self._info, self._device)
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

    def __init__(self, tensors: _Tensors, batch: CanvasBatch) -> None:
        self.tensors: _Tensors | None = tensors
        self.valid, self.image_sizes = batch.valid, batch.image_sizes
        self.arrays: dict[str, np.ndarray] = {"image_sizes": batch.image_sizes}

    def array(self, name: str) -> np.ndarray:
        """Return a tensor of all images, which comes down with the other tensors of its block."""
        if name not in self.arrays and self.tensors is not None:
            block = self.tensors.descriptors if name in _DESCRIPTORS else self.tensors.results
            self.arrays.update(block.download())
        return self.arrays[name]

    def bring_down(self) -> None:
        """Bring everything down to the host, because the device memory will be used again."""
        self.array("keypoints")
        self.array("descriptors")
        self.tensors = None


class _Block:
    """Tensors that lie one after the other on the device, and are copied as one.

    Attributes:
        host: arrays of the host, by the name of the tensor; `upload` copies them.
    """

    def __init__(self, tensors: _Layout, lengths: Mapping[str, int], device: str) -> None:
        self._places = {}
        size = 0
        for name, (dtype, letters) in tensors.items():
            shape = _shape(letters, lengths)
            end = size + int(np.prod(shape)) * np.dtype(dtype).itemsize
            self._places[name] = size, end, dtype, shape
            size = -(-end // _ALIGNMENT) * _ALIGNMENT
        self._staging = np.zeros(max(size, 1), np.uint8)
        self._sent: np.ndarray | None = None
        self._value: ort.OrtValue = onnxruntime().OrtValue.ortvalue_from_numpy(self._staging.copy(), device)
        self.host = self._views(self._staging)

    def pin(self) -> None:
        """Lock the memory of the host arrays, from which the GPU then copies without a detour.

        Without the driver's function, as on some Jetsons, `upload` takes longer.
        """
        try:
            driver = ctypes.CDLL("libcuda.so.1")
            lock, unlock = driver.cuMemHostRegister_v2, driver.cuMemHostUnregister
        except (OSError, AttributeError):
            return
        address = ctypes.c_void_p(self._staging.ctypes.data)
        if lock(address, ctypes.c_size_t(self._staging.nbytes), 0) == 0:
            weakref.finalize(self._staging, unlock, address).atexit = False

    def address(self, name: str) -> int:
        """Return the address of a tensor on the device."""
        return int(self._value.data_ptr()) + self._places[name][0]

    def upload(self) -> None:
        """Copy the arrays of the host to the device."""
        self._value.update_inplace(self._staging)

    def upload_changes(self) -> None:
        """Copy the arrays of the host to the device, unless they are the same as last time."""
        if self._sent is None or not np.array_equal(self._sent, self._staging):
            self.upload()
            self._sent = self._staging.copy()

    def download(self) -> dict[str, np.ndarray]:
        """Copy the tensors to new arrays; waits for the runs before."""
        return self._views(np.array(self._value.numpy()))

    def _views(self, buffer: np.ndarray) -> dict[str, np.ndarray]:
        return {
            name: buffer[start:end].view(dtype).reshape(shape)
            for name, (start, end, dtype, shape) in self._places.items()
        }


class _Tensors:
    """All tensors of a frame on a device."""

    def __init__(self, shapes: Shapes, info: GraphInfo, device: str) -> None:
        self.shapes = shapes
        height, width, channels = shapes.canvas
        self._lengths = {
            "N": shapes.extracted,
            "M": shapes.matched,
            "R": max(shapes.extracted, shapes.matched),
            "P": shapes.pairs,
            "K": info.max_keypoints,
            "D": info.descriptor_dim,
            "H": height,
            "W": width,
            "C": channels,
        }
        self._device = device
        blocks = (_FRAME, _SETTINGS, _RESULTS, _DESCRIPTORS)
        self.frame, self.settings, self.results, self.descriptors = (
            _Block(tensors, self._lengths, device) for tensors in blocks
        )
        if device == "cuda":
            self.frame.pin()
        self._places = {
            name: (block, *place)
            for block, tensors in zip(
                (self.frame, self.settings, self.results, self.descriptors), blocks, strict=True
            )
            for name, place in tensors.items()
        }

    def bind(self, binding: ort.IOBinding, graph: str) -> None:
        """Bind the inputs and outputs of a graph to the addresses of the tensors."""
        rows = "M" if graph == MATCHER else "N"
        for names, bind in ((INPUTS, binding.bind_input), (OUTPUTS, binding.bind_output)):
            for name in names[graph]:
                block, dtype, letters = self._places[name]
                shape = _shape(letters.replace("R", rows), self._lengths)
                bind(name, self._device, 0, dtype, shape, block.address(name))


def _shape(letters: str, lengths: Mapping[str, int]) -> list[int]:
    return [lengths[letter] if letter in lengths else int(letter) for letter in letters]
