"""Joins and unpacks what bench/gpu_pack.py made, and installs its wheels. Needs only Python's own library.

python3 gpu_unpack.py PARTS FOLDER
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

CHUNK = 1 << 20


class Parts(io.RawIOBase):
    """The bytes of all parts as one stream; each part is checked before its bytes are used."""

    def __init__(self, folder: Path) -> None:
        self._blocks = self._read(folder)
        self._left = b""

    def _read(self, folder: Path) -> Iterator[bytes]:
        for name, sha256 in json.loads((folder / "parts.json").read_text()).items():
            data = (folder / name).read_bytes()
            if hashlib.sha256(data).hexdigest() != sha256:
                raise ValueError(f"{folder / name} is damaged; fix: copy it again")
            yield from (data[start : start + CHUNK] for start in range(0, len(data), CHUNK))

    def readable(self) -> bool:
        """Tell that the stream can be read."""
        return True

    def readinto(self, buffer: bytearray) -> int:
        """Fill the buffer with the next bytes."""
        self._left = self._left or next(self._blocks, b"")
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count


def main() -> None:
    """Unpack, and install the wheels into the folder `site`."""
    parts, folder = Path(sys.argv[1]), Path(sys.argv[2])
    stream = io.BufferedReader(Parts(parts))
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        # Python 3.10 and 3.11 of Debian and Ubuntu have no filters.
        tar.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    wheels = sorted(map(str, (folder / "wheels").glob("*.whl")))
    site = folder / "site"
    if wheels:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
        subprocess.run([*pip, "--upgrade", "--target", str(site), *wheels], check=True)
    # ONNX Runtime looks for NVIDIA's packages next to itself.
    nvidia = importlib.util.find_spec("nvidia")
    if wheels and nvidia and nvidia.submodule_search_locations and not (site / "nvidia").exists():
        (site / "nvidia").symlink_to(next(iter(nvidia.submodule_search_locations)))


if __name__ == "__main__":
    main()
