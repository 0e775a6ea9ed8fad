"""Names what a machine lacks for the set-up, each with the command that installs it."""

import importlib.util
import shutil
import sys

missing = []
if not (3, 10) <= sys.version_info[:2] <= (3, 13):
    found = "{}.{}".format(*sys.version_info)
    missing.append(f"Python 3.10 to 3.13 (this is {found}): make PYTHON=python3.12")
if importlib.util.find_spec("ensurepip") is None:
    missing.append("Python's venv: sudo apt install python3-venv")
for tool, package in (("cmake", "cmake"), ("gcc", "build-essential"), ("g++", "build-essential")):
    if shutil.which(tool) is None:
        missing.append(f"{tool}: sudo apt install {package}")
for line in missing:
    print(f"missing: {line}", file=sys.stderr)
sys.exit(bool(missing))
