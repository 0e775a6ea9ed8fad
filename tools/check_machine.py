"""Says in one line what a machine lacks for `make demo` and `make test`, and how to get it."""

import importlib.util
import shutil
import sys

APT = "sudo apt install"


def lacks() -> list[str]:
    """What is missing, each with the command that brings it."""
    missing = []
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        found = ".".join(str(number) for number in sys.version_info[:2])
        missing.append(f"Python 3.10 to 3.13 (this is {found}): make PYTHON=python3.12")
    if importlib.util.find_spec("ensurepip") is None:
        missing.append(f"Python's venv: {APT} python3-venv")
    missing += [
        f"{tool}: {APT} {package}"
        for tool, package in (("cmake", "cmake"), ("gcc", "build-essential"), ("g++", "build-essential"))
        if shutil.which(tool) is None
    ]
    return missing


if __name__ == "__main__":
    for lack in lacks():
        print(f"missing: {lack}", file=sys.stderr)
    sys.exit(1 if lacks() else 0)
