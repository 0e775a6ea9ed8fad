"""The folder OUT.part next to an output OUT in the making, with which an ended run is resumed.

It holds `key` (a hash of bag and settings), frames.json (the index of the bag's frames), a file for each
matched chunk of frames, a recovered copy of a bag without an end, and at last the output while it is written.
Each file gets its name when it is whole, and the last step of a run gives the output the name OUT.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lightglue_ros.errors import ConfigError


class WorkFolder:
    """The work folder of an output.

    Args:
        output: the output.

    Attributes:
        path: the folder; absolute, because processes elsewhere may work in another folder.
        index: file of the bag's `FrameIndex`.
        recovered: folder of the recovered copy of a broken bag.
    """

    def __init__(self, output: Path) -> None:
        self.path = output.absolute().with_name(f"{output.name}.part")
        self.index = self.path / "frames.json"
        self.recovered = self.path / "recovered"

    def chunk(self, first: int, last: int) -> Path:
        """Return the file of the matched frames first to last - 1."""
        return self.path / f"frames-{first}-{last}"

    def write(self, path: Path, content: bytes) -> None:
        """Write a file that gets its name when it is whole, even if the power fails."""
        making = path.with_name(f"{path.name}.making")
        with making.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        making.replace(path)

    def remove_unfinished(self, pattern: str) -> None:
        """Remove folders that an ended run left behind."""
        for folder in self.path.glob(pattern):
            shutil.rmtree(folder, ignore_errors=True)

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)


@contextmanager
def locked_work_folder(output: Path, key: str) -> Iterator[WorkFolder]:
    """Make or enter the work folder of an output; an error before there is an index removes the folder.

    Args:
        output: the output.
        key: hash of all that the output depends on.

    Raises:
        ConfigError: another run holds the folder, or the folder belongs to another bag or other settings.
    """
    folder = WorkFolder(output)
    folder.path.mkdir(exist_ok=True)
    with (folder.path / "lock").open("w") as lock:
        _lock(lock, output)
        key_file = folder.path / "key"
        if not key_file.exists():
            folder.write(key_file, key.encode())
        if key_file.read_text() != key:
            raise ConfigError(
                f"{folder.path} was begun for another bag or with other settings",
                fix=f"give the same arguments to go on, or begin anew: rm -r {folder.path}",
            )
        try:
            yield folder
        except CancelledError:
            raise
        except Exception:
            # The lock is still held, so that no other run begins in the folder.
            if not folder.index.exists():
                folder.remove()
            raise


def _lock(file: IO[str], output: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigError(
            f"another run is writing {output}", fix="wait for it, or choose another output"
        ) from error
    except OSError:
        pass  # a file system without locks
