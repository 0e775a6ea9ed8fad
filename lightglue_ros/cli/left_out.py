"""Report of what a command leaves out."""

from __future__ import annotations

import sys
import traceback

from tqdm import tqdm

from lightglue_ros.errors import LightGlueRosError


class LeftOut:
    """Prints what is left out and why, with the first traceback of each kind of unexpected error.

    Attributes:
        count: number of things that were left out.
    """

    def __init__(self) -> None:
        self.count = 0
        self._kinds: set[type[Exception]] = set()

    def __call__(self, what: str, error: Exception) -> None:
        """Print that something (an image, a pair or a picture) is left out because of an error."""
        self.count += 1
        text = " ".join(str(error).split())
        with tqdm.external_write_mode(sys.stderr):
            if isinstance(error, LightGlueRosError):
                print(f"left out: {text}", file=sys.stderr, flush=True)
                return
            if type(error) not in self._kinds:
                traceback.print_exception(error)
                self._kinds.add(type(error))
            print(f"left out: {what}: {type(error).__name__}: {text}", file=sys.stderr, flush=True)
