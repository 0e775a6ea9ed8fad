"""Cameras of a robot and pairs of their images, also through time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lightglue_ros.errors import ConfigError

MAX_CAMERAS = 8
# Largest number of past images of a camera: their features take 0.25 MiB each with XFeat at 1024 keypoints.
# The node keeps the image messages as well while somebody looks at pictures.
MAX_FRAMES_BACK = 100

_VIEW = re.compile(r"(?P<camera>[^:@]+)(@-(?P<back>[0-9]{1,4}))?")


@dataclass(frozen=True)
class View:
    """Image of a camera, in the present frame or in a past one.

    Attributes:
        camera: index of the camera.
        back: number of the camera's processed frames ago; 0 is the present one.
    """

    camera: int
    back: int = 0


@dataclass(frozen=True)
class Rig:
    """N named cameras and P pairs of their views.

    Attributes:
        cameras: names; the slot of a camera in a frame is its place here.
        pairs: two views each; empty if images are only extracted.
    """

    cameras: tuple[str, ...]
    pairs: tuple[tuple[View, View], ...]

    @classmethod
    def parse(cls, cameras: Sequence[str], pairs: Sequence[str]) -> Rig:
        """Build a rig from names and from pairs written as ``first:second``.

        ``left@-1`` in a pair is the image of the camera ``left`` in the last frame that was processed,
        ``left@-5`` the fifth last. Frames that were dropped between them do not count.

        Raises:
            ConfigError: a name is empty, contains a colon or stands twice, there are too many names or none,
                or a pair does not name two different views.
        """
        names = tuple(cameras)
        for name in names:
            if not name or ":" in name or "@" in name:
                raise ConfigError(
                    f"parameter cameras has the name '{name}'",
                    allowed="names that are not empty, without ':' and '@'",
                )
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(
                f"parameter cameras names '{twice[0]}' more than once ({', '.join(names)})",
                allowed="each camera once",
                fix="give every camera its own name, for example cameras: [left, right]",
            )
        if not names:
            raise ConfigError(
                "parameter cameras is empty", allowed="at least one name", fix="cameras: [left, right]"
            )
        if len(names) > MAX_CAMERAS:
            raise ConfigError(
                f"parameter cameras has {len(names)} names",
                allowed=f"1 to {MAX_CAMERAS}",
                fix="run a second matcher for the others",
            )
        return cls(names, tuple(_parse_pair(pair, names) for pair in pairs))

    @property
    def most_images(self) -> int:
        """Largest number of images in one run, of the extractor or of the matcher."""
        return max(len(self.cameras), len({view for pair in self.pairs for view in pair}))

    @property
    def most_frames_back(self) -> int:
        """Largest number of past frames that the pairs need of a camera."""
        return max(map(self.frames_back, range(len(self.cameras))))

    def name_of(self, pair: tuple[View, View]) -> str:
        """Return the name of a pair as `parse` takes it, such as ``left@-1:left``."""
        return ":".join(
            f"{self.cameras[view.camera]}@-{view.back}" if view.back else self.cameras[view.camera]
            for view in pair
        )

    def frames_back(self, camera: int) -> int:
        """Return how many past frames of a camera the pairs need."""
        return max((view.back for pair in self.pairs for view in pair if view.camera == camera), default=0)

    def is_served_by(self, present: set[int]) -> bool:
        """Return True if a frame of these cameras completes a pair, or if there are no pairs."""
        return not self.pairs or self.count_served(present) > 0

    def count_served(self, present: set[int]) -> int:
        """Return the number of pairs that a frame of these cameras completes."""
        return sum(all(view.back or view.camera in present for view in pair) for pair in self.pairs)


def _parse_pair(pair: str, cameras: tuple[str, ...]) -> tuple[View, View]:
    found = [_VIEW.fullmatch(text) for text in pair.split(":")]
    views = [
        View(cameras.index(view["camera"]), int(view["back"] or 0))
        for view in found
        if view and view["camera"] in cameras
    ]
    backs = sorted(view.back for view in views)
    if len(found) == len(views) == len(set(views)) == 2 and backs[0] == 0 and backs[1] <= MAX_FRAMES_BACK:
        return views[0], views[1]
    name = cameras[0]
    example = ":".join(cameras[:2]) if len(cameras) > 1 else f"{name}@-1:{name}"
    raise ConfigError(
        f"parameter pairs has '{pair}'",
        allowed=f"first:second with two of the cameras {', '.join(cameras)}, or through time as "
        f"{name}@-1:{name}, one of the two at present and the other at most {MAX_FRAMES_BACK} frames before",
        fix=f'pairs: ["{example}"]',
    )
