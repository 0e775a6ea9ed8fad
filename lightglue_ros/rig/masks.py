"""Masks of the cameras of a rig: one that stays, such as of the robot's own arm, and one that changes.

The changing masks of a camera come from elsewhere, such as a segmentation of people. The newest one is used
if its time is near that of the image. Without such a mask the camera goes on with the mask that stays, if it
has one, and `problems` says so: a robot that loses its segmentation must not lose its matches as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lightglue_ros.core.features import Features
from lightglue_ros.core.masks import Mask
from lightglue_ros.errors import ImageError


class CameraMasks:
    """Knows the masks of each camera; `take` may be called from another thread.

    Args:
        staying: the mask of each camera that stays; None for a camera without one.
        changing: for each camera where its changing masks come from, such as a topic; empty for a camera
            without.
        max_age: longest time between a changing mask and an image (s).

    Attributes:
        problems: why the last image of each camera was matched without one of its masks; empty if it was not.
    """

    def __init__(self, staying: Sequence[Mask | None], changing: Sequence[str], max_age: float) -> None:
        self.problems = [""] * len(staying)
        self._staying = staying
        self._changing = changing
        self._max_age = max_age
        self._newest: list[_Changing | None] = [None] * len(staying)

    def take(self, camera: int, stamp: int, make: Callable[[], Mask]) -> None:
        """Take a camera's newest changing mask.

        Args:
            stamp: time in nanoseconds, on the clock of the images.
            make: returns the mask, when an image needs it, or raises an `ImageError`.
        """
        self._newest[camera] = _Changing(stamp, make)

    def forget(self, camera: int) -> None:
        """Forget the changing mask of a camera."""
        self._newest[camera] = None

    def of_frame(
        self, stamps: Sequence[int | None], images: Sequence[np.ndarray | Features | None]
    ) -> list[Mask | None]:
        """Return the mask of each image of a frame; None where there is no image or no mask.

        Args:
            stamps: times of the images in nanoseconds.
            images: decoded images.
        """
        return [
            self._of_image(camera, stamp, (image.shape[1], image.shape[0]))
            if stamp is not None and isinstance(image, np.ndarray)
            else None
            for camera, (stamp, image) in enumerate(zip(stamps, images, strict=True))
        ]

    def _of_image(self, camera: int, stamp: int, size: tuple[int, int]) -> Mask | None:
        staying, problem = self._staying[camera], ""
        try:
            if staying is not None:
                staying.require_aspect(size)
        except ImageError as error:
            staying, problem = None, str(error)
        found = staying
        if self._changing[camera]:
            newest = self._newest[camera]
            try:
                self._require_near(camera, stamp, newest)
                if newest is not None:
                    found = newest.joined_to(staying, size)
            except ImageError as error:
                problem = "; ".join(filter(None, [problem, str(error)]))
        self.problems[camera] = problem
        return found

    def _require_near(self, camera: int, stamp: int, newest: _Changing | None) -> None:
        where = self._changing[camera]
        if newest is None:
            raise ImageError(f"no mask has come on {where}", fix="publish masks there")
        seconds = 1e-9 * (stamp - newest.stamp)
        if abs(seconds) > self._max_age:
            when = "before" if seconds > 0 else "after"
            raise ImageError(
                f"the newest mask on {where} is of {abs(seconds):.2f} s {when} the image",
                allowed=f"up to {self._max_age:g} s",
                fix="publish masks more often, with the stamps of their images, or raise mask_max_age",
            )


class _Changing:
    """A mask that is made when an image needs it; it stays as it is or as wrong as it is."""

    def __init__(self, stamp: int, make: Callable[[], Mask]) -> None:
        self.stamp = stamp
        self._make = make
        self._made: Mask | ImageError | None = None
        self._joined: tuple[Mask | None, Mask] | None = None

    def joined_to(self, staying: Mask | None, size: tuple[int, int]) -> Mask:
        """Return the mask, joined to another one if there is one, for an image of (width, height)."""
        if self._made is None:
            try:
                self._made = self._make()
            except ImageError as error:
                self._made = error
        if isinstance(self._made, ImageError):
            raise self._made
        self._made.require_aspect(size)
        # The same object for the same masks, because it is then at hand on the canvas.
        if self._joined is None or self._joined[0] is not staying:
            self._joined = staying, self._made if staying is None else staying.joined(self._made)
        return self._joined[1]
