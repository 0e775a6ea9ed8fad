"""Cameras of a robot and pairs of their images, also through time, and of stored images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from lightglue_ros.errors import ConfigError
from lightglue_ros.rig.references import Reference, parse_references

MAX_CAMERAS = 8
# Largest number of past images of a camera: their features take 0.25 MiB each with XFeat at 1024 keypoints.
# The node keeps the image messages as well while somebody looks at pictures.
MAX_FRAMES_BACK = 100

# Most images of a folder of references in one run of the matcher.
FOLDER_IMAGES_PER_RUN = 4

_VIEW = re.compile(r"(?P<name>[^:@]+)(@-(?P<back>[0-9]{1,4})|@(?P<place>[1-9][0-9]{0,4}))?")


@dataclass(frozen=True)
class View:
    """Image of a camera, in the present frame or in a past one, or a reference.

    Attributes:
        camera: index of the camera; the indices of references follow those of the cameras.
        back: number of the camera's processed frames ago; 0 is the present one.
        rank: of a folder of references, the number of images that match better; 0 is the best one.
    """

    camera: int
    back: int = 0
    rank: int = 0


@dataclass(frozen=True)
class Rig:
    """N named cameras, stored images with names, and P pairs of their views.

    Attributes:
        cameras: names; the slot of a camera in a frame is its place here.
        pairs: two views each; empty if images are only extracted.
        references: stored images, which are in no frame.
    """

    cameras: tuple[str, ...]
    pairs: tuple[tuple[View, View], ...]
    references: tuple[Reference, ...] = ()

    @classmethod
    def parse(cls, cameras: Sequence[str], pairs: Sequence[str], references: Sequence[str] = ()) -> Rig:
        """Build a rig from names and from pairs written as ``first:second``.

        ``left@-1`` in a pair is the image of the camera ``left`` in the last frame that was processed,
        ``left@-5`` the fifth last. Frames that were dropped between them do not count. ``left:dock`` is a
        camera with the reference ``dock``; if that is a folder, with the image of it that matches best, and
        ``left:dock@2`` is the second best.

        Args:
            cameras: names.
            pairs: of cameras, or of a camera and a reference.
            references: ``name:path`` of an image file or a folder of them each.

        Raises:
            ConfigError: a name is empty, contains a colon or stands twice, there are too many names or none,
                a pair does not name two different views, or a reference has no file.
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
        stored = parse_references(references, names)
        return cls(names, tuple(_parse_pair(pair, names, stored) for pair in pairs), stored)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of cameras and references, by the index in a view."""
        return (*self.cameras, *(reference.name for reference in self.references))

    @property
    def most_images(self) -> int:
        """Largest number of images in one run, of the extractor or of the matcher; of a folder one."""
        return max(len(self.cameras), len({view for pair in self.matched_pairs for view in pair}))

    @cached_property
    def matched_pairs(self) -> list[tuple[View, View]]:
        """The pairs without ranks, each once: best and second best of a folder are matched together."""
        return list(dict.fromkeys(map(without_rank, self.pairs)))

    @property
    def run_shape(self) -> tuple[int, int]:
        """Largest numbers of pairs and images in one run of the matcher; static exports may have less."""
        of_folders = FOLDER_IMAGES_PER_RUN * self.has_folder
        return max(len(self.matched_pairs), of_folders), max(self.most_images, 1 + of_folders)

    @property
    def has_folder(self) -> bool:
        """True if a pair has a folder of references."""
        references = [self.reference_of(view) for pair in self.pairs for view in pair]
        return any(it.is_folder for it in references if it is not None)

    @property
    def most_frames_back(self) -> int:
        """Largest number of past frames that the pairs need of a camera."""
        return max(map(self.frames_back, range(len(self.cameras))))

    def name_of(self, pair: tuple[View, View]) -> str:
        """Return the name of a pair as `parse` takes it, such as ``left@-1:left``."""
        return ":".join(
            self.names[it.camera] + (f"@-{it.back}" if it.back else f"@{it.rank + 1}" if it.rank else "")
            for it in pair
        )

    def reference_of(self, view: View) -> Reference | None:
        """Return the reference of a view; None for an image of a camera."""
        return None if view.camera < len(self.cameras) else self.references[view.camera - len(self.cameras)]

    def is_of_two_cameras(self, pair: tuple[View, View]) -> bool:
        """Return True if the pair is of two cameras at the same time."""
        return not any(view.back or self.reference_of(view) for view in pair)

    def frames_back(self, camera: int) -> int:
        """Return how many past frames of a camera the pairs need."""
        return max((view.back for pair in self.pairs for view in pair if view.camera == camera), default=0)

    def is_served_by(self, present: set[int]) -> bool:
        """Return True if a frame of these cameras completes a pair, or if there are no pairs."""
        return not self.pairs or self.count_served(present) > 0

    def count_served(self, present: set[int]) -> int:
        """Return the number of pairs that a frame of these cameras completes."""
        stored = len(self.cameras)  # references are always there
        return sum(
            all(it.back or it.camera in present or it.camera >= stored for it in pair) for pair in self.pairs
        )


def without_rank(pair: tuple[View, View]) -> tuple[View, View]:
    """Return a pair with all images of a folder in the place of one of them."""
    if not pair[0].rank and not pair[1].rank:
        return pair
    return replace(pair[0], rank=0), replace(pair[1], rank=0)


def _parse_pair(pair: str, cameras: tuple[str, ...], references: tuple[Reference, ...]) -> tuple[View, View]:
    views = [_parse_view(text, cameras, references) for text in pair.split(":")]
    if len(views) == len(set(views)) == 2:
        first, second = views
        if first and second and any(not it.back and it.camera < len(cameras) for it in (first, second)):
            return first, second
    name = cameras[0]
    allowed = (
        f"first:second with two of the cameras {', '.join(cameras)}, or through time as {name}@-1:{name}, "
        f"one of the two at present and the other at most {MAX_FRAMES_BACK} frames before"
    )
    example = ":".join(cameras[:2]) if len(cameras) > 1 else f"{name}@-1:{name}"
    if references:
        stored = references[0].name
        example = f"{name}:{stored}"
        named = ", ".join(it.name for it in references)
        allowed += (
            f", or a camera at present with one of the references {named}; {stored} is the best image of a "
            f"folder, {stored}@2 the second best"
        )
    raise ConfigError(f"parameter pairs has '{pair}'", allowed=allowed, fix=f'pairs: ["{example}"]')


def _parse_view(text: str, cameras: tuple[str, ...], references: tuple[Reference, ...]) -> View | None:
    found = _VIEW.fullmatch(text)
    if found is None:
        return None
    name, back, place = found["name"], int(found["back"] or 0), int(found["place"] or 1)
    if name in cameras and not found["place"] and back <= MAX_FRAMES_BACK:
        return View(cameras.index(name), back)
    for number, reference in enumerate(references, len(cameras)):
        if name == reference.name and not found["back"] and place <= len(reference.images):
            return View(number, rank=place - 1)
    return None
