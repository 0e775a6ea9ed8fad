"""Counts the findings of a run about a bag: what was left out, and what else the user should know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

# Kinds of findings, each with its line for the user.
_LINES = {
    "damaged": "{example}",
    "rejected": "camera {about}: {count} images rejected ({cause}), such as: {example}",
    "failed": "{count} frames failed, such as: {example}",
    "missing": "camera {about} is missing in {count} frames: {cause}",
    "unverified": "pair {about} is not verified in {count} frames: {cause}",
    "unmasked": "camera {about} is matched without a mask in {count} frames, such as: {example}",
    "calibration": "the calibration of pair {about} does not hold: {cause}",
    "note": "{example}",
}
# With these, something that was recorded was left out.
_LOSSES = {"damaged", "rejected", "failed"}


@dataclass(frozen=True)
class Finding:
    """A finding about a bag.

    Attributes:
        kind: damaged, rejected, failed, missing, unverified, unmasked, calibration or note.
        about: camera, pair or file; empty for the bag as a whole.
        cause: what is counted together; of rejected images a key such as broken_jpeg.
        count: number of images, frames or files.
        example: text of the first one.
    """

    kind: str
    about: str
    cause: str
    count: int
    example: str

    @property
    def is_loss(self) -> bool:
        """True if something that was recorded was left out."""
        return self.kind in _LOSSES

    def __str__(self) -> str:
        return _LINES[self.kind].format(**vars(self))


def in_words(findings: Sequence[Finding]) -> str:
    """Return findings in one line; cameras whose images were rejected for the same reason stand together."""
    together: dict[tuple[str, ...], Finding] = {}
    for one in findings:
        key = (one.kind, one.cause, "" if one.kind == "rejected" else one.about)
        known = together.get(key)
        if known is not None:
            one = replace(one, about=f"{known.about}, {one.about}", count=known.count + one.count)
        together[key] = one
    return "; ".join(map(str, together.values()))


class Tally:
    """Findings, each counted by its kind, what it is about, and its cause."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, str], tuple[int, str]] = {}

    def add(self, kind: str, about: str, cause: str, example: str = "", count: int = 1) -> None:
        """Count a finding; the first example is kept."""
        before, first = self._counts.get((kind, about, cause), (0, example))
        self._counts[kind, about, cause] = before + count, first

    def say(self, kind: str, line: str) -> None:
        """Add a line that is a finding of its own: a note, or what is damaged."""
        if (kind, "", line) not in self._counts:
            self.add(kind, "", line, line)

    def update(self, other: Tally) -> None:
        """Add the findings of another tally."""
        for key, (count, example) in other._counts.items():
            self.add(*key, example, count)

    def count(self, kind: str) -> int:
        """Return the number of findings of a kind."""
        return sum(count for (one, _, _), (count, _) in self._counts.items() if one == kind)

    def findings(self) -> list[Finding]:
        """Return all findings, the gravest first."""
        found = [Finding(*key, count, example) for key, (count, example) in self._counts.items()]
        return sorted(found, key=lambda one: list(_LINES).index(one.kind))
