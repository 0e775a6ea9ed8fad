"""Import rules: which room imports which, and that package.xml names what is imported."""

import ast
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
# A lower room never imports a higher one.
LOWER_ROOMS = {
    "errors": set(),
    "core": {"errors"},
    "rig": {"core", "errors"},
    "rosdata": {"core", "errors", "rig"},
    "nodes": {"core", "errors", "msg", "rig", "rosdata"},
    "bags": {"core", "errors", "rig", "rosdata"},
    "export": {"core", "errors"},
}
# Other packages that these rooms may import. In nodes, bags and cli any package is allowed but PyTorch's.
OTHER_PACKAGES = {
    "errors": set(),
    "core": {"numpy", "cv2", "onnxruntime"},
    "rig": {"numpy", "cv2"},
    "rosdata": {"numpy", "cv2", "cv_bridge", "mcap", "rosbags", "yaml", "zstandard"},
    "export": {"numpy", "cv2", "onnx", "onnxruntime", "onnxscript", "torch"},
}
OF_EXPORT = {"onnx", "onnxscript", "torch"}
# rosdep's names of Python packages.
ROSDEP = {
    "cv2": "python3-opencv",
    "numpy": "python3-numpy",
    "onnxruntime": "python3-onnxruntime-pip",
    "tabulate": "python3-tabulate",
    "tqdm": "python3-tqdm",
    "yaml": "python3-yaml",
}
# An error message names such a package where it is needed and missing.
OPTIONAL = {"cv_bridge", "foxglove_msgs", "h5py", "mcap", "ray", "rosbags", "zstandard"}


def imports(file):
    """Names of the modules that a file imports, in full."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files_of(room):
    """Source files of a room."""
    folder = ROOT / room if room in ("export", "launch") else ROOT / "lightglue_ros" / room
    return sorted(folder.rglob("*.py")) or [folder.with_suffix(".py")]


def packages_of(*rooms):
    """Packages apart from ours and the standard library's that the rooms import."""
    names = {name.split(".")[0] for room in rooms for file in files_of(room) for name in imports(file)}
    return names - {"lightglue_ros", *sys.stdlib_module_names}


@pytest.mark.parametrize("room", LOWER_ROOMS)
def test_a_lower_room_imports_no_higher_one(room):
    for file in files_of(room):
        for name in imports(file):
            package, _, rest = name.partition(".")
            imported = rest.split(".")[0]
            if package == "lightglue_ros" and imported != "__version__":
                assert imported in LOWER_ROOMS[room] | {room}, f"{file} imports {name}"


@pytest.mark.parametrize("room", OTHER_PACKAGES)
def test_a_room_imports_only_its_own_kind_of_packages(room):
    assert packages_of(room) <= OTHER_PACKAGES[room]


def test_only_the_export_imports_pytorch_and_onnx():
    assert not packages_of("nodes", "bags", "cli", "launch") & OF_EXPORT


def test_the_command_line_imports_the_export_only_when_a_command_runs():
    for file in files_of("cli"):
        at_once = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ImportFrom)]
        assert not [node.module for node in at_once if node.module.startswith("lightglue_ros.export")], file


def test_package_xml_names_every_package_that_is_imported():
    root = ElementTree.parse(ROOT / "package.xml").getroot()
    named = {entry.text for kind in ("depend", "exec_depend") for entry in root.findall(kind)}
    imported = packages_of("core", "rig", "rosdata", "nodes", "bags", "cli", "launch") - OPTIONAL
    assert {ROSDEP.get(package, package) for package in imported} <= named
