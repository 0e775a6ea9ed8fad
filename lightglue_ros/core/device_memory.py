"""Memory of a device: the tensors of a frame in blocks, each of which is copied as one."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lightglue_ros.core.contract import INPUTS, MATCHER, OUTPUTS, GraphInfo
from lightglue_ros.core.device_lock import device_lock
from lightglue_ros.core.providers import onnxruntime
from lightglue_ros.errors import ProviderError

if TYPE_CHECKING:
    import onnxruntime as ort

Layout = Mapping[str, tuple[Any, str]]

# Types and shapes of the tensors, as in `contract`. N images are extracted and M are matched; R is the larger
# of the two. The tensors of a block are copied together.
FRAME: Layout = {
    "images": (np.uint8, "NHWC"),
    "sizes": (np.float32, "N2"),
    "scales": (np.float32, "N2"),
    "valid": (np.bool_, "N"),
    "max_keypoints": (np.int64, "1"),
}
MASKS: Layout = {"masks": (np.bool_, "NHW")}
NO_MASKS: Layout = {"masks": (np.bool_, "111")}
SETTINGS: Layout = {
    "image_sizes": (np.float32, "M2"),
    "pairs": (np.int64, "P2"),
    "match_threshold": (np.float32, "1"),
}
RESULTS: Layout = {
    "keypoints": (np.float32, "RK2"),
    "keypoint_scores": (np.float32, "RK"),
    "keypoint_mask": (np.bool_, "RK"),
    "matches": (np.int32, "PK"),
    "match_scores": (np.float32, "PK"),
    "layers": (np.int32, "P"),
}
DESCRIPTORS: Layout = {"descriptors": (np.float32, "RKD")}

# Features of one image that is kept for later frames.
KEPT: Layout = {
    "keypoints": (np.float32, "1K2"),
    "keypoint_scores": (np.float32, "1K"),
    "keypoint_mask": (np.bool_, "1K"),
    "descriptors": (np.float32, "1KD"),
}

# Of CUDA's header driver_types.h: cudaMemcpyDeviceToDevice and cudaStreamPerThread.
_DEVICE_TO_DEVICE, _STREAM_PER_THREAD = 3, 2
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
        masked: True if there are masks for all pixels of the canvas.
    """

    extracted: int = 0
    matched: int = 0
    pairs: int = 0
    canvas: tuple[int, int, int] = (0, 0, 0)
    masked: bool = False

    @classmethod
    def of(cls, info: GraphInfo) -> Shapes:
        """Return the shapes of a static export, which no run may change, or zeros."""
        if info.batch is None or info.pairs is None or info.image_size is None or info.channels is None:
            return cls()
        width, height = info.image_size
        return cls(info.batch, info.batch, info.pairs, (height, width, info.channels), masked=True)


class Block:
    """Tensors that lie one after the other on the device, and are copied as one.

    Attributes:
        host: arrays of the host, by the name of the tensor; `upload` copies them.
    """

    def __init__(self, tensors: Layout, lengths: Mapping[str, int], device: str) -> None:
        self._unlocks: list[Callable[[], object]] = []
        self._places = {}
        size = 0
        for name, (dtype, letters) in tensors.items():
            shape = _shape(letters, lengths)
            end = size + int(np.prod(shape)) * np.dtype(dtype).itemsize
            self._places[name] = size, end, dtype, shape
            size = -(-end // _ALIGNMENT) * _ALIGNMENT
        self._staging = np.zeros(max(size, 1), np.uint8)
        self._sent: np.ndarray | None = None
        of_staging = onnxruntime().OrtValue.ortvalue_from_numpy
        with device_lock:
            self._value: ort.OrtValue = of_staging(self._staging.copy(), device)
        self.host = self._views(self._staging)

    def __del__(self) -> None:
        """Release the memory of the device, and the lock on that of the host."""
        for unlock in self._unlocks:
            device_lock.call_soon(unlock)
        device_lock.release_soon(self)

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
        with device_lock:
            if lock(address, ctypes.c_size_t(self._staging.nbytes), 0) == 0:
                self._unlocks.append(partial(unlock, address))

    def address(self, name: str) -> int:
        """Return the address of a tensor on the device."""
        return int(self._value.data_ptr()) + self._places[name][0]

    def image(self, name: str, row: int) -> tuple[int, int]:
        """Return the address on the device and the size in bytes of an image's part of a tensor."""
        start, end, _, shape = self._places[name]
        size = (end - start) // shape[0]
        return self.address(name) + row * size, size

    def upload(self) -> None:
        """Copy the arrays of the host to the device."""
        with device_lock:
            self._value.update_inplace(self._staging)

    def upload_changes(self) -> None:
        """Copy the arrays of the host to the device, unless they are the same as last time."""
        if self._sent is None or not np.array_equal(self._sent, self._staging):
            self.upload()
            self._sent = self._staging.copy()

    def download(self) -> dict[str, np.ndarray]:
        """Copy the tensors to new arrays; waits for the runs before."""
        with device_lock:
            found = np.array(self._value.numpy())
        return self._views(found)

    def _views(self, buffer: np.ndarray) -> dict[str, np.ndarray]:
        return {
            name: buffer[start:end].view(dtype).reshape(shape)
            for name, (start, end, dtype, shape) in self._places.items()
        }


class Tensors:
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
        blocks = (FRAME, MASKS if shapes.masked else NO_MASKS, SETTINGS, RESULTS, DESCRIPTORS)
        made = [Block(tensors, self._lengths, device) for tensors in blocks]
        self.frame, self._masks, self.settings, self.results, self.descriptors = made
        self._sent_masks: np.ndarray | None = None
        if device == "cuda":
            self.frame.pin()
        self._places = {
            name: (block, *place)
            for block, tensors in zip(made, blocks, strict=True)
            for name, place in tensors.items()
        }

    @property
    def copy(self) -> Callable[[int, int, int], object] | None:
        """Function that copies on the device, see `copy_on`."""
        return copy_on(self._device)

    def image(self, name: str, row: int) -> tuple[int, int]:
        """Return the address on the device and the size in bytes of an image's part of a tensor."""
        block: Block = self._places[name][0]
        return block.image(name, row)

    def upload_masks(self, masks: np.ndarray) -> None:
        """Copy masks to the device, unless they are the array of last time."""
        if masks is not self._sent_masks:
            self._masks.host["masks"][...] = masks
            self._masks.upload()
            self._sent_masks = masks

    def new_kept(self) -> Block:
        """Make room for the features of one image."""
        return Block(KEPT, self._lengths, self._device)

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


@cache
def copy_on(device: str) -> Callable[[int, int, int], object] | None:
    """Return a function that copies within the memory of a device: to an address, from one, so many bytes.

    The copy follows the runs of the thread in their stream (see `provider_options`), and nobody waits for it.
    None if CUDA's library cannot be loaded by its name.
    """
    if device == "cpu":
        return ctypes.memmove
    version = (getattr(onnxruntime(), "cuda_version", "") or "12").partition(".")[0]
    try:
        call = ctypes.CDLL(f"libcudart.so.{version}").cudaMemcpyAsync
    except OSError:
        return None
    call.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]

    def copy(target: int, source: int, size: int) -> None:
        with device_lock:
            error = call(target, source, size, _DEVICE_TO_DEVICE, _STREAM_PER_THREAD)
        if error:
            raise ProviderError(f"CUDA cannot copy features on the GPU (error {error})")

    return copy
