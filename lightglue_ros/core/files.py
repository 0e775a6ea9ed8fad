"""Files: their order in a folder, what their first bytes say, and writing them whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from lightglue_ros.errors import ConfigError

# Beginnings of files that people give by mistake, with what to do.
_MISTAKEN = {
    b"version https://git-lfs.github.com": (
        "a Git LFS pointer, which stands for a file that was not fetched",
        "git lfs pull",
    ),
    b"#ROSBAG V": ("a ROS 1 bag", "convert it: rosbags-convert --src FILE.bag --dst FOLDER"),
}


def mistaken_file(begin: bytes | memoryview) -> tuple[str, str] | None:
    """Name a file by its first bytes if it is a Git LFS pointer or a ROS 1 bag; return it with the fix."""
    for magic, named in _MISTAKEN.items():
        if bytes(begin[: len(magic)]) == magic:
            return named
    return None


def natural_order(path: str | os.PathLike[str]) -> tuple[list[str | int], str]:
    """Return a key that sorts names by the numbers in them: 1, 2, 10."""
    name = os.fspath(path)
    # Texts and numbers take turns, so that a text is never compared with a number.
    words = re.split(r"(\d+)", name)
    return [int(word) if index % 2 else word for index, word in enumerate(words)], name


def require_parent_folder(path: Path) -> None:
    """Raise a ConfigError if the folder that an output goes to is missing or read-only."""
    folder = path.expanduser().absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"cannot write {path}: there is no folder {folder}", fix="make it first")
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"cannot write {path}: the folder {folder} is read-only", fix="name another folder")


def require_file_name(path: Path) -> None:
    """Raise a ConfigError if no file can be made or replaced at `path`: it may be a folder."""
    require_parent_folder(path)
    path = path.expanduser()
    if path.exists() and not path.is_file():
        found = "a folder" if path.is_dir() else "no regular file"
        raise ConfigError(f"cannot write {path}: it is {found}", fix="name a file that may be replaced")


# Opens a file at a path; in the `with` block it gives a function that writes one more part of the file.
Writer = Callable[[Path], AbstractContextManager[Callable[[Any], object]]]


@contextmanager
def written_whole(writers: Mapping[Path, Writer]) -> Iterator[Callable[[Any], object]]:
    """Open files, and give a function that writes one more part of each of them.

    The files are written as NAME.part and get their names together, when all of them are whole, even if the
    power fails. An error leaves none of them. If the process is killed, .part files may stay; the next run
    writes over them.

    Raises:
        ConfigError: a file cannot be written.
    """
    targets = {path: path.expanduser().resolve() for path in writers}  # a link stays a link
    parts = {path: _part_of(target) for path, target in targets.items()}
    try:
        with ExitStack() as stack:
            adds = [
                stack.enter_context(_NamedInErrors(path, write(parts[path])))
                for path, write in writers.items()
            ]
            yield lambda part: [add(part) for add in adds]
        for path, part in parts.items():
            with named_in_errors(path):
                _sync(part)
        for path, part in parts.items():
            with named_in_errors(path):
                os.replace(part, targets[path])
    finally:
        _remove(parts.values())


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that gets its name when it is whole; see `written_whole`.

    Raises:
        ConfigError: the file cannot be written.
    """
    with written_whole({path: _opened}) as add:
        add(data)


@contextmanager
def _opened(path: Path) -> Iterator[Callable[[bytes], object]]:
    with path.open("wb") as file:
        yield file.write


def _part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _remove(parts: Iterable[Path]) -> None:
    for part in parts:
        with suppress(OSError):  # it has got its name, or could not be made
            part.unlink()


def _sync(path: Path) -> None:
    """Wait until the file is on the disk, so that a power failure leaves the old file or the new."""
    with path.open("rb+") as file:
        os.fsync(file)


@contextmanager
def named_in_errors(path: Path, kinds: tuple[type[Exception], ...] = (OSError,)) -> Iterator[None]:
    """Name the file in errors of these kinds, which come from writing it.

    Raises:
        ConfigError: in place of such an error.
    """
    try:
        yield
    except kinds as error:
        raise ConfigError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error


class _NamedInErrors(AbstractContextManager[Callable[[Any], object]]):
    """An open file of `written_whole`, whose errors name it and whose block's errors do not."""

    def __init__(self, path: Path, opened: AbstractContextManager[Callable[[Any], object]]) -> None:
        self._path = path
        self._opened = opened

    def __enter__(self) -> Callable[[Any], object]:
        with named_in_errors(self._path):
            # As a decorator it names the file in the errors of each later write.
            return named_in_errors(self._path)(self._opened.__enter__())

    def __exit__(self, *error: Any) -> bool | None:
        with named_in_errors(self._path):
            return self._opened.__exit__(*error)
