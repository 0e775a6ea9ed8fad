"""Draws a matched bag as a video: all pairs of each frame, as the node draws them.

It is made of the matches in the output and of the images in the input, after both are there. So it does not
depend on processes, and an interrupted run does not matter.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from lightglue_ros.bags.recorded_images import check_image, find_image_topics, read_images
from lightglue_ros.core.files import written_whole
from lightglue_ros.core.video_files import video_file
from lightglue_ros.errors import RejectedImageError
from lightglue_ros.rosdata.bags import Bag, Place
from lightglue_ros.rosdata.drawing import RecentKeypoints, draw_message
from lightglue_ros.rosdata.messages import stamp_in_ns
from lightglue_ros.rosdata.parameters import MatcherParameters
from lightglue_ros.rosdata.typestore import MATCHES_TOPIC, MATCHES_TYPE, TRACKS_TOPIC, TRACKS_TYPE, typestore

# Decoded images that are kept for other pairs.
_HELD = 32
# Pictures per second if the times of recording do not tell.
_DEFAULT_RATE = 10.0
_HIGHEST_RATE = 120.0


def write_video(bags: Sequence[Path], matched: Path, path: Path, settings: MatcherParameters) -> None:
    """Write a video of a matched bag.

    Args:
        bags: the input.
        matched: the output.
        path: of the video.
        settings: the parameters that it was matched with.

    Raises:
        ConfigError: the video cannot be written, or a bag cannot be read.
    """
    with Bag(*bags) as recorded, Bag(matched) as results:
        images = _RecordedImages(recorded, settings)
        rate = _mean_rate([message.time for message in results.messages([MATCHES_TOPIC])])
        with written_whole({path: partial(video_file, rate=rate)}) as add:
            recent = RecentKeypoints()
            for time, data in _tracks_first(results, recent):
                matches = typestore().deserialize_cdr(data, MATCHES_TYPE)
                find = partial(images.find, time)
                pairs = [
                    (find(it.camera0, it.stamp0, it.frame_id0), find(it.camera1, it.stamp1, it.frame_id1))
                    for it in matches.pairs
                ]
                add(draw_message(matches, pairs, settings.style, recent.frames))


def _tracks_first(results: Bag, recent: RecentKeypoints) -> Iterator[tuple[int, bytes]]:
    """Yield times and data of matches, after the tracks of the same time were added to the keypoints."""
    messages = results.messages([TRACKS_TOPIC, MATCHES_TOPIC])
    for time, of_frame in groupby(messages, key=lambda message: message.time):
        matches = []
        for message in of_frame:
            if message.topic.name == MATCHES_TOPIC:
                matches.append(message.data)
            else:
                recent.add_tracks(typestore().deserialize_cdr(message.data, TRACKS_TYPE))
        yield from ((time, data) for data in matches)


def _mean_rate(times: Sequence[int]) -> float:
    """Return the mean rate of times in nanoseconds, in Hz."""
    if len(times) < 2 or times[-1] <= times[0]:
        return _DEFAULT_RATE
    return round(min(1e9 * (len(times) - 1) / (times[-1] - times[0]), _HIGHEST_RATE), 2)


class _RecordedImages:
    """Finds the images that matches name by camera and stamp, or by reference and file."""

    def __init__(self, bag: Bag, settings: MatcherParameters) -> None:
        self._bag = bag
        self._settings = settings
        self._references = {reference.name: reference for reference in settings.frame.rig.references}
        self._kinds: dict[str, str] = {}
        self._black: dict[str, np.ndarray] = {}
        # The times of recording and places of all images of a camera with a stamp: a bag may loop.
        self._places: dict[tuple[str, int], list[tuple[int, Place]]] = defaultdict(list)
        self._decode = lru_cache(_HELD)(self._decode_anew)
        topics = find_image_topics(bag, settings)
        for number, message in read_images(bag, topics):
            camera, kind = settings.cameras[number], topics[number].kind
            with suppress(RejectedImageError):
                image = check_image(message.data, kind, settings.max_image_pixels)
                self._places[camera, stamp_in_ns(image.header)].append((message.time, message.place))
                self._black.setdefault(camera, np.zeros((image.height, image.width), np.uint8))
                self._kinds[camera] = kind

    def find(self, time: int, camera: str, stamp: Any, frame_id: str) -> np.ndarray | None:
        """Return the image that a frame of a time has; a black one if it is missing, None without a size.

        Args:
            time: of recording of the frame's last image in nanoseconds.
            camera: name, or that of a reference.
            stamp: of the image.
            frame_id: of the image; of a reference the name of its file.
        """
        if camera in self._references:
            return self._read_reference(camera, frame_id)
        places = self._places.get((camera, stamp.sec * 1_000_000_000 + stamp.nanosec))
        if places:
            before = bisect_right(places, time, key=lambda one: one[0])
            with suppress(RejectedImageError):
                return self._decode(camera, places[max(before - 1, 0)][1])
        return self._black.get(camera)

    def _read_reference(self, name: str, file_name: str) -> np.ndarray | None:
        stored = self._references[name].find(file_name)
        with suppress(RejectedImageError):
            return None if stored is None else stored.decode(self._settings.mono16)
        return None

    def _decode_anew(self, camera: str, place: Place) -> np.ndarray:
        image = check_image(self._bag.read(place), self._kinds[camera], self._settings.max_image_pixels)
        return image.decode(self._settings.mono16)
