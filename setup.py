"""What `pip install .` uses where no ROS 2 is wanted; `colcon build` goes by CMakeLists.txt."""

import re
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "lightglue_ros/__init__.py").read_text()).group(1)

setup(
    name="lightglue_ros",
    version=VERSION,
    description="LightGlue feature matching between the cameras of a robot, as ROS 2 topics",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=[
        "lightglue_ros",
        "lightglue_ros.bags",
        "lightglue_ros.cli",
        "lightglue_ros.core",
        "lightglue_ros.definitions",
        "lightglue_ros.export",
        "lightglue_ros.export.models",
        "lightglue_ros.export.precision",
        "lightglue_ros.nodes",
        "lightglue_ros.rig",
        "lightglue_ros.rosdata",
    ],
    package_dir={
        "lightglue_ros": "lightglue_ros",
        "lightglue_ros.definitions": "msg",
        "lightglue_ros.export": "export",
    },
    package_data={"lightglue_ros.definitions": ["*.msg"]},
    install_requires=["numpy", "opencv-python-headless"],
    # All builds of ONNX Runtime fill the same folder `onnxruntime`, and pip cannot let an extra replace a
    # requirement. So the build is chosen by an extra, and a Jetson's, which comes from NVIDIA, is left alone.
    extras_require={
        "cpu": ["onnxruntime>=1.20"],
        "gpu": ["onnxruntime-gpu>=1.20"],
        "bag": ["mcap>=1.2", "pyyaml", "rosbags>=0.11", "tabulate"],
        "h5": ["h5py>=3"],
        "export": ["torch>=2.6", "onnx>=1.17", "onnxscript>=0.6", "pip", "tabulate"],
        "ray": ["ray>=2.9"],
        "dev": [
            "h5py>=3",
            "hypothesis",
            "mcap>=1.2",
            "pytest",
            "pyyaml",
            "rosbags>=0.11",
            "ruff",
            "tabulate",
        ],
    },
    entry_points={"console_scripts": ["lightglue_ros = lightglue_ros.cli:main"]},
)
