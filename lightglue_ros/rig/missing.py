"""Reasons why cameras are missing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence


def why_missing(
    cameras: Sequence[str],
    missing: Collection[int],
    clocks: Mapping[int, float],
    slop: float,
    period: float,
    unusable: Mapping[int, str],
) -> dict[int, str]:
    """Return for each missing camera why it is missing and the fix, in words.

    Args:
        cameras: names of the rig's cameras.
        missing: indices of the missing cameras.
        clocks: seconds by which the clocks of missing cameras are ahead of the others', see `FrameAssembler`.
        slop: largest difference between the stamps of a frame, in seconds.
        period: of the fastest camera, in seconds; 0 if it is not known.
        unusable: cameras of which no usable image comes, and why.
    """
    # Images come, and the assembler keeps none of them.
    late = "its stamps do not increase, or do not fit the other cameras'; fix: the stamps of its driver"
    causes = dict.fromkeys(sorted(missing), late)
    for camera in causes:
        others = [name for name in cameras if name != cameras[camera]]
        theirs = f"{others[0]}'s" if len(others) == 1 else "the others'"
        if camera in unusable:
            causes[camera] = unusable[camera]
        elif camera in clocks:
            causes[camera] = _of_stamps(clocks[camera], theirs, slop, period)
    return causes


def _of_stamps(ahead: float, theirs: str, slop: float, period: float) -> str:
    """Describe stamps that differ: a wrong clock or, if they differ by less than a period, a small slop."""
    if abs(ahead) > max(period, slop):
        where = "ahead of" if ahead > 0 else "behind"
        return (
            f"its stamps are {abs(ahead):.1f} s {where} {theirs}; "
            "fix: the clock of its computer (PTP, chrony), or the stamps of its driver"
        )
    upper = f" ({period:.3g} s)" if period else ""
    return (
        f"its stamps are not within sync_slop, {slop:.3g} s, of {theirs}; "
        f"fix: a common trigger, or a sync_slop of up to one camera period{upper}"
    )
