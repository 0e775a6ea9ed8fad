"""Sorts images that wait into moments: at most one image of each camera, all within the slop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeVar

from lightglue_ros.rig.rig import Rig

T = TypeVar("T")
# Stamp in nanoseconds, and image.
Entry = tuple[int, T]
# The entry of each camera that belongs to one moment.
Moment = dict[int, Entry[T]]


def sort_into_moments(rig: Rig, queues: Sequence[Iterable[Entry[T]]], slop: float) -> list[Moment[T]]:
    """Sort the waiting images of each camera into moments, oldest first.

    Stamps alone do not tell to which moment an image belongs that lies between two. Of two ways to sort, the
    better one is taken (see `worth`), so that such a camera does not tear cameras apart that are in step.
    """
    images = [(entry[0], camera, entry) for camera, queue in enumerate(queues) for entry in queue]
    images.sort(key=lambda image: image[:2])
    gaps = range(1, len(images))
    oldest_first = _joined(images, gaps, slop)
    ends = [[stamp for stamp, _ in moment.values()] for moment in oldest_first]
    if all(min(after) - max(before) > slop for before, after in pairwise(ends)):
        return oldest_first  # the usual case: no image fits two moments
    closest_first = sorted(gaps, key=lambda gap: images[gap][0] - images[gap - 1][0])
    return max(oldest_first, _joined(images, closest_first, slop), key=lambda way: worth(rig, way))


def worth(rig: Rig, moments: Sequence[Moment[T]]) -> tuple[int, int, int]:
    """Rate moments: more pairs are better, then larger moments, then closer stamps."""
    pairs = sum(rig.count_served(set(moment)) for moment in moments)
    sizes = sum(len(moment) ** 2 for moment in moments)
    return pairs, sizes, -sum(map(spread_of, moments))


def spread_of(moment: Moment[T]) -> int:
    """Return the largest difference between the stamps of a moment in nanoseconds."""
    stamps = [stamp for stamp, _ in moment.values()]
    return max(stamps, default=0) - min(stamps, default=0)


def split_at_widest_gap(moment: Moment[T]) -> tuple[Moment[T], Moment[T]]:
    """Split a moment at the widest gap between its stamps; the first part of a single image is empty."""
    entries = sorted(moment.items(), key=lambda item: item[1][0])
    gaps = [after[1][0] - before[1][0] for before, after in pairwise(entries)]
    split = 1 + gaps.index(max(gaps)) if gaps else 0
    return dict(entries[:split]), dict(entries[split:])


def _joined(images: Sequence[tuple[int, int, Entry[T]]], gaps: Iterable[int], slop: float) -> list[Moment[T]]:
    """Join neighbours across gaps, in the order of the gaps, where all images then lie within the slop."""
    moments: list[Moment[T]] = [{camera: entry} for _, camera, entry in images]
    for gap in gaps:
        before, after = moments[gap - 1], moments[gap]
        joined = before | after
        if before.keys().isdisjoint(after) and spread_of(joined) <= slop:
            moments = [joined if moment is before or moment is after else moment for moment in moments]
    return list({id(moment): moment for moment in moments}.values())
