"""What `pip install .` uses where no ROS 2 is wanted; `colcon build` goes by CMakeLists.txt."""

import importlib.metadata
import re
import sysconfig
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "lightglue_ros/__init__.py").read_text()).group(1)

# All builds of ONNX Runtime fill the same folder `onnxruntime`, and the last one installed wins. So where
# another build is there already (a Jetson's comes from NVIDIA) the CPU build must not come on top.
OTHER_RUNTIMES = ("onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-rocm", "onnxruntime-qnn")
REQUIRES = ["numpy", "opencv-python-headless"]
EXPORT = ["torch>=2.6", "onnx>=1.17", "onnxscript>=0.5", "pip"]


def is_installed(name: str) -> bool:
    # pip builds in an environment of its own; what is installed lies where this Python's packages lie.
    folder = sysconfig.get_paths()["purelib"]
    return any(importlib.metadata.distributions(name=name, path=[folder]))


if not any(is_installed(name) for name in OTHER_RUNTIMES):
    REQUIRES.append("onnxruntime>=1.20")

setup(
    name="lightglue_ros",
    version=VERSION,
    description="LightGlue feature matching between the cameras of a robot, as ROS 2 topics",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=["lightglue_ros", "lightglue_ros.core", "lightglue_ros.nodes", "lightglue_ros.export"],
    package_dir={"lightglue_ros": "lightglue_ros", "lightglue_ros.export": "export"},
    install_requires=REQUIRES,
    extras_require={
        "export": EXPORT,
        "gpu": ["onnxruntime-gpu>=1.20"],
        "dev": [*EXPORT, "hypothesis", "pytest", "pyyaml", "ruff"],
    },
    entry_points={"console_scripts": ["lightglue_ros = lightglue_ros.cli:main"]},
)
