"""The folder OUT.part next to an output OUT in the making, with which an ended run is resumed.

It holds `key` (a hash of bag and settings), `index` (of the bag's frames), a file for each matched chunk of
frames, `unpacked` (copies of files of the bag that cannot be read as they are), and at last the output while
it is written. Each file gets its name when it is whole. The last step of a run gives the output the name OUT.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempprefix
from typing import IO

from lightglue_ros.core.files import write_whole
from lightglue_ros.errors import ConfigError

# Without this file there is nothing to resume.
INDEX = "index"


@contextmanager
def locked_work_folder(output: Path, key: str) -> Iterator[Path]:
    """Make or enter the work folder of an output, and remove it unless an error leaves something to resume.

    Args:
        output: path of the output.
        key: hash of all that the output depends on.

    Yields:
        The folder; absolute, because processes elsewhere may work in another folder.

    Raises:
        ConfigError: another run holds the folder, or the folder belongs to another bag or other settings.
    """
    folder = output.absolute().with_name(f"{output.name}.part")
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        _lock(lock, output)
        key_file = folder / "key"
        if not key_file.exists():
            write_whole(key_file, key.encode())
        if key_file.read_text() != key:
            raise ConfigError(
                f"{folder} was begun for another bag or with other settings",
                fix=f"give the same arguments to go on, or begin anew: rm -r {folder}",
            )
        _remove_unfinished(folder)
        try:
            yield folder
        except Exception as error:
            if isinstance(error, CancelledError):
                raise
            _remove_unfinished(folder)  # the disk may be full
            if (folder / INDEX).exists():
                raise
            shutil.rmtree(folder, ignore_errors=True)
            raise
        # The lock is still held, so that no other run begins in the folder.
        shutil.rmtree(folder, ignore_errors=True)


def _remove_unfinished(folder: Path) -> None:
    for unfinished in folder.glob(f"{gettempprefix()}*"):
        shutil.rmtree(unfinished, ignore_errors=True)


def _lock(file: IO[str], output: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigError(
            f"another run is writing {output}", fix="wait for it, or choose another output"
        ) from error
    except OSError:
        pass  # a file system without locks
