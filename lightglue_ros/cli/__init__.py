"""The command line: `lightglue_ros`, `python -m lightglue_ros` and `ros2 run lightglue_ros`.

This module only reads arguments and prints; each command's work is elsewhere and is imported when it runs.
"""

from __future__ import annotations

import argparse
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightglue_ros import __version__

if TYPE_CHECKING:
    from lightglue_ros.cli.matching import Geometry
    from lightglue_ros.export.registry import ModelSpec
    from lightglue_ros.rig.verification import Intrinsics

EXPORT_OPTIONS = (
    "split",
    "max_keypoints",
    "precision",
    "image_size",
    "batch",
    "pairs",
    "channels",
    "opset",
    "portable",
    "compaction",
    "adaptive",
    "depth_confidence",
    "width_confidence",
)
LONGEST_SIDE = 8192  # pixels of a canvas, as in the node's parameters
# These are ROS 2 nodes; ROS reads their arguments (--ros-args -p name:=value).
NODES = {
    "matcher": "publish the matches of camera topics",
    "viewer": "draw the matches on the images",
    "player": "publish images, videos or a bag as cameras",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        if argv and argv[0] in NODES and not {"-h", "--help"} & set(argv[1:]):
            return _run_node(argv[0], argv[1:])
        arguments = _parser().parse_args(argv)
        return arguments.run(arguments)
    except Exception as error:
        if not isinstance(error, OSError) and not _is_for_the_user(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # A node that is told to end before it has begun has done what it was told.
        return 0 if argv and argv[0] in NODES else 130


def _is_for_the_user(error: Exception) -> bool:
    # By name, so that `--help` needs neither NumPy nor ONNX Runtime.
    return any(base.__name__ == "LightGlueRosError" for base in type(error).__mro__)


def _run_node(name: str, arguments: list[str]) -> int:
    # Until the node has handlers of its own.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _need_ros(name)
    return import_module(f"lightglue_ros.nodes.{name}").main(arguments)


def _need_ros(command: str) -> None:
    from lightglue_ros.core import ConfigError

    try:
        import rclpy  # noqa: F401
    except ImportError as missing:
        raise ConfigError(
            f"{command} needs ROS 2, and rclpy cannot be imported ({missing})",
            fix="source /opt/ros/jazzy/setup.bash, or that of your ROS 2",
        ) from missing
    try:
        import lightglue_ros.msg  # noqa: F401
    except ImportError as missing:
        raise ConfigError(
            f"{command} needs the messages of lightglue_ros, which colcon builds ({missing})",
            fix="colcon build, source install/setup.bash, and run it from another folder than the source's",
        ) from missing


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lightglue_ros", description="Matches keypoints between the cameras of a robot with LightGlue."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_export(commands)
    _add_match(commands)
    _add_bag(commands)
    _add_bench(commands)
    _add_demo(commands)
    for name, text in NODES.items():
        node = commands.add_parser(
            name,
            help=f"node: {text}",
            description=f"A ROS 2 node: {text}.",
            epilog=f"ros2 run lightglue_ros {name} --ros-args -p name:=value",
        )
        node.set_defaults(run=None)
    return parser


def _add_export(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "export", help="write a model as ONNX files into the model store (needs PyTorch)"
    )
    command.add_argument("model", help="which model, such as xfeat")
    command.add_argument("--list", action=_ListModels, help="list the models and exit")
    command.add_argument(
        "--split",
        action="store_true",
        help="extractor.onnx and matcher.onnx, as the node needs, not pipeline.onnx",
    )
    command.add_argument(
        "--max-keypoints",
        type=int,
        default=1024,
        metavar="K",
        help="keypoint slots an image; a smaller cap can be set while running (1024)",
    )
    command.add_argument(
        "--precision",
        default="fp32",
        help="fp32; fp16 for GPUs: half the bytes, positions, detector and assignment stay fp32; "
        "int8 for CPUs: the matcher's linear layers and attention, and XFeat's convolutions (fp32)",
    )
    command.add_argument(
        "--image-size",
        type=_size_or_dynamic,
        metavar="WxH",
        help="fix all shapes, as TensorRT and CUDA graphs want it; dynamic leaves them free (dynamic)",
    )
    command.add_argument("--batch", type=int, metavar="N", help="images, with --image-size (2)")
    command.add_argument("--pairs", type=int, metavar="P", help="pairs, with --image-size (1)")
    command.add_argument(
        "--channels", type=int, metavar="C", help="1 for grey cameras, 3 for RGB, with --image-size"
    )
    command.add_argument("--opset", type=int, help="of the ONNX operators, 18 to 23 (the least that will do)")
    command.add_argument(
        "--portable", action="store_true", help="for other runtimes: only operators that those have, too"
    )
    command.add_argument(
        "--compaction",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="match with as many slots as the image with the most keypoints needs (unless shapes are fixed)",
    )
    command.add_argument(
        "--adaptive", action="store_true", help="pairs stop early and points are pruned, as in the original"
    )
    command.add_argument(
        "--depth-confidence",
        type=float,
        metavar="C",
        help="share of sure points that a pair stops at, with --adaptive; -1 never (0.95, xfeat -1)",
    )
    command.add_argument(
        "--width-confidence",
        type=float,
        metavar="C",
        help="how sure it must be that a point has no partner to prune it, with --adaptive; -1 never "
        "(0.99, xfeat 0.95)",
    )
    command.add_argument(
        "--weights", nargs="+", type=Path, default=[], metavar="PATH", help="weights files of your own"
    )
    command.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="folder to write to (the model store)"
    )
    command.set_defaults(run=_export)


class _ListModels(argparse.Action):
    """Prints the models instead of running the command, so that no model need be named."""

    def __init__(self, option_strings: list[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from lightglue_ros.export import MODELS

        header = ("model", "extractor", "descriptor", "channels", "divisor", "matcher weights", "licence")
        rows = [header, *map(_model_row, MODELS.values())]
        widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            print("  ".join(cells).rstrip())
        parser.exit()


def _model_row(spec: ModelSpec) -> tuple[str, ...]:
    from lightglue_ros.export.weights import PinnedFile

    matcher = spec.weights[-1]
    return (
        spec.name,
        spec.extractor,
        str(spec.matcher.input_dim),
        str(spec.channels),
        str(spec.divisor),
        matcher.name if isinstance(matcher, PinnedFile) else "none published",
        spec.licence,
    )


def _export(arguments: argparse.Namespace) -> int:
    from lightglue_ros.export import export_model

    export_model(
        arguments.model,
        output=arguments.output,
        weights=arguments.weights,
        **{name: getattr(arguments, name) for name in EXPORT_OPTIONS},
    )
    return 0


def _add_match(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("match", help="match images")
    command.add_argument("images", nargs="+", metavar="IMAGE", help="image files, folders of them, or globs")
    command.add_argument(
        "--pairs", metavar="I:J,...", help="which images to match, from 0 (each with the next)"
    )
    _add_model_options(command)
    command.add_argument(
        "--match-threshold", type=float, metavar="SCORE", help="least score of a match (0.1)"
    )
    command.add_argument(
        "--verify",
        metavar="GEOMETRY",
        help="mark the matches that agree with one fundamental, homography or essential matrix, within a "
        "pixel of the canvas",
    )
    command.add_argument(
        "--intrinsics", metavar="FX,FY,CX,CY", help="of the camera in pixels, for --verify essential"
    )
    command.add_argument(
        "--draw",
        type=Path,
        metavar="PNG",
        help="draw the first pair, side by side; or a folder, for all pairs",
    )
    command.add_argument("--json", type=Path, metavar="FILE", help="write the matches of all pairs")
    command.add_argument("--npz", type=Path, metavar="FILE", help="the same as NumPy arrays")
    command.add_argument(
        "--h5", type=Path, metavar="DIR", help="features.h5, matches.h5 and pairs.txt, as hloc reads them"
    )
    command.set_defaults(run=_match)


def _add_model_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--model", default="xfeat", help="name in the model store, folder or .onnx file (xfeat)"
    )
    command.add_argument("--provider", default="auto", help="auto, cpu, cuda, tensorrt or openvino (auto)")
    command.add_argument(
        "--image-size", type=_size, default=(640, 480), metavar="WxH", help="canvas (640x480)"
    )
    command.add_argument(
        "--max-keypoints", type=int, metavar="N", help="at most N per image (all of the model's)"
    )


def _match(arguments: argparse.Namespace) -> int:
    from lightglue_ros.cli import matching
    from lightglue_ros.cli.models import ensure_model
    from lightglue_ros.core import ConfigError, MatchPipeline
    from lightglue_ros.core.image_files import find_images

    paths = find_images(arguments.images)
    pairs = _pairs(arguments.pairs, len(paths))
    if not pairs:
        raise ConfigError("there is nothing to match", allowed="at least two images, or --pairs")
    geometry = _geometry(arguments.verify, arguments.intrinsics)
    outputs = matching.Outputs(arguments.draw, arguments.json, arguments.npz, arguments.h5)
    outputs.check()
    ensure_model(arguments.model, lambda line: print(line, file=sys.stderr, flush=True))
    options = {} if arguments.match_threshold is None else {"match_threshold": arguments.match_threshold}
    pipeline = MatchPipeline(
        arguments.model,
        arguments.provider,
        arguments.image_size,
        max_keypoints=arguments.max_keypoints,
        **options,
    )
    width, height = pipeline.image_size
    print(f"{pipeline.info.model} on {pipeline.provider}, images shrunk to fit {width}x{height}", flush=True)
    matching.run(pipeline, paths, pairs, outputs, geometry)
    return 0


def _pairs(text: str | None, images: int) -> list[tuple[int, int]]:
    from lightglue_ros.core import ConfigError

    if text is None:
        return [(first, first + 1) for first in range(images - 1)]
    try:
        pairs = [(int(first), int(second)) for first, second in (pair.split(":") for pair in text.split(","))]
    except ValueError as error:
        raise ConfigError(f"--pairs is '{text}'", allowed="numbers of images such as 0:1,1:2") from error
    if not all(number in range(images) for pair in pairs for number in pair):
        raise ConfigError(f"--pairs is '{text}'", allowed=f"numbers of images, from 0 to {images - 1}")
    return pairs


def _geometry(name: str | None, intrinsics: str | None) -> Geometry | None:
    from lightglue_ros.cli.matching import Geometry
    from lightglue_ros.core import ConfigError
    from lightglue_ros.rig.verification import GEOMETRIES

    if name is not None and name not in GEOMETRIES:
        raise ConfigError(f"--verify is '{name}'", allowed=", ".join(GEOMETRIES))
    if (name == "essential") != (intrinsics is not None):
        raise ConfigError(
            "--verify essential and --intrinsics go together, and one is missing",
            fix="lightglue_ros match ... --verify essential --intrinsics fx,fy,cx,cy",
        )
    if name is None:
        return None
    return Geometry(name, None if intrinsics is None else _intrinsics(intrinsics))


def _intrinsics(text: str) -> Intrinsics:
    import numpy as np

    from lightglue_ros.core import ConfigError
    from lightglue_ros.rig.verification import Intrinsics

    try:
        fx, fy, cx, cy = map(float, text.split(","))
    except ValueError as error:
        raise ConfigError(f"--intrinsics is '{text}'", allowed="four numbers fx,fy,cx,cy") from error
    if not (np.isfinite([fx, fy, cx, cy]).all() and fx > 0 and fy > 0):
        raise ConfigError(f"--intrinsics is '{text}'", allowed="finite numbers, and fx and fy greater than 0")
    return Intrinsics(np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]))


def _add_bag(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "bag",
        help="match recorded bags",
        description="Matches recorded rosbag2 as the node would have, and writes them again with /matches. "
        "No frame is dropped. The same command goes on where it was interrupted.",
    )
    command.add_argument("bags", nargs="+", type=Path, metavar="BAG", help="folders, .db3 or .mcap files")
    command.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help="folder of the new bag; of several bags a folder for all",
    )
    command.add_argument(
        "--params-file",
        type=Path,
        metavar="YAML",
        help="rig, pairs and model, in the file that the node reads",
    )
    command.add_argument(
        "-p",
        "--param",
        action="append",
        default=[],
        metavar="NAME:=VALUE",
        help="a parameter of the node, before those of the file; may be repeated",
    )
    command.add_argument("--matches-only", action="store_true", help="leave out the messages of the input")
    command.add_argument("--storage", metavar="KIND", help="sqlite3 or mcap (that of the input)")
    command.add_argument(
        "--jobs", type=_positive, metavar="N", help="tasks at once (1; with Ray one a core of the cluster)"
    )
    command.add_argument("--engine", default="processes", help="processes, or ray for a cluster (processes)")
    command.set_defaults(run=_bag)


def _bag(arguments: argparse.Namespace) -> int:
    from lightglue_ros.bags.engines import make_engine
    from lightglue_ros.bags.job import Output
    from lightglue_ros.bags.run import run
    from lightglue_ros.cli.models import ensure_model
    from lightglue_ros.rosdata.parameters import MatcherSettings, read_file

    settings = MatcherSettings.of(read_file(arguments.params_file, arguments.param))
    ensure_model(settings.values.model, lambda line: print(line, file=sys.stderr, flush=True))
    output = Output(arguments.output, arguments.matches_only, arguments.storage)
    engine = make_engine(arguments.engine, arguments.jobs)
    try:
        return run(arguments.bags, output, settings, engine)
    finally:
        engine.close()


def _add_bench(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "bench", help="measure where the time goes, and the rate of the running node"
    )
    _add_model_options(command)
    command.add_argument(
        "--frames", type=_positive, default=50, metavar="N", help="stereo frames to measure (50)"
    )
    command.set_defaults(run=_bench)


def _bench(arguments: argparse.Namespace) -> int:
    from lightglue_ros.cli.bench import run

    return run(
        arguments.model, arguments.provider, arguments.image_size, arguments.max_keypoints, arguments.frames
    )


def _add_demo(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "demo", help="play two images into the matcher over ROS 2 and look at the matches"
    )
    command.add_argument("left", nargs="?", type=Path, help="image file (Middlebury's motorcycle)")
    command.add_argument("right", nargs="?", type=Path, help="image file")
    _add_model_options(command)
    command.add_argument("--seconds", type=float, default=10.0, help="how long to listen (10)")
    command.add_argument("--rate", type=float, default=10.0, help="images per second and camera (10)")
    command.add_argument(
        "-o", "--output", type=Path, default=Path("demo.png"), metavar="PNG", help="picture (demo.png)"
    )
    command.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    _need_ros("demo")
    from lightglue_ros.cli.demo import run

    return run(arguments)


def _size(text: str) -> tuple[int, int]:
    sides = text.split("x")
    if len(sides) != 2 or not all(side.isdigit() and 1 <= int(side) <= LONGEST_SIDE for side in sides):
        raise argparse.ArgumentTypeError(
            f"'{text}' is no size; allowed: WIDTHxHEIGHT such as 640x480, each at most {LONGEST_SIDE}"
        )
    return int(sides[0]), int(sides[1])


def _size_or_dynamic(text: str) -> tuple[int, int] | None:
    return None if text == "dynamic" else _size(text)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not allowed; allowed: 1 or more")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
