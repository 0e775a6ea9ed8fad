"""Build of `pip install .`, for machines without ROS 2. `colcon build` uses CMakeLists.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "lightglue_ros/__init__.py").read_text()).group(1)
FOLDERS = {
    "lightglue_ros": "lightglue_ros",
    "lightglue_ros.definitions": "msg",
    "lightglue_ros.export": "export",
}
PARTS = [f"{name}.{part}" for name, folder in FOLDERS.items() for part in find_packages(HERE / folder)]

setup(
    name="lightglue_ros",
    version=VERSION,
    description="LightGlue feature matching between the cameras of a robot, as ROS 2 topics",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=[*FOLDERS, *PARTS],
    package_dir=FOLDERS,
    # Under the folder of the environment, as under that of a ROS workspace.
    data_files=[("share/lightglue_ros/rtabmap", [str(it) for it in Path("rtabmap").glob("*.py")])],
    package_data={"lightglue_ros.definitions": ["*.msg"]},
    install_requires=["numpy", "opencv-python-headless", "tabulate", "tqdm"],
    # An extra chooses the build of ONNX Runtime: all builds fill the same folder `onnxruntime`, and an extra
    # cannot replace a requirement. Without an extra an installed build stays, such as NVIDIA's on a Jetson.
    extras_require={
        "cpu": ["onnxruntime>=1.20"],
        # With CUDA and cuDNN: CUDA 13 needs driver 580, and ONNX Runtime is built for CUDA 12 up to 1.26.
        "gpu": ["onnxruntime-gpu[cuda,cudnn]>=1.27"],
        "gpu-cuda12": ["onnxruntime-gpu[cuda,cudnn]>=1.21,<1.27"],
        "bag": ["mcap>=1.2", "pyyaml", "rosbags>=0.11", "zstandard"],
        "h5": ["h5py>=3"],
        "export": ["torch>=2.6", "onnx>=1.17", "onnxscript>=0.6", "pip"],
        "ray": ["ray>=2.9"],
    },
    entry_points={"console_scripts": ["lightglue_ros = lightglue_ros.cli:main"]},
)
