"""Compares OpenVINO's own runtime with ours: extractor and matcher of a stereo pair of 640 x 480, XFeat.

    . tools/env.sh
    pip install openvino
    for precision in fp32 int8; do
      lightglue_ros export xfeat --split --max-keypoints 512 --precision $precision
      lightglue_ros export xfeat --split --max-keypoints 512 --precision $precision --target portable \\
        --image-size 640x480 -o portable-$precision
    done
    python bench/openvino_runtime.py xfeat-k512 xfeat-k512-int8 --portable portable-fp32 portable-int8

OpenVINO runs the portable files, and ONNX Runtime those for CPUs, with the same number of threads and in
turns; the fastest round counts. A process of its own tries each file first, because OpenVINO crashes on some.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino

from exported import Exported, Tensors
from lightglue_ros.cli.bench import camera_images
from lightglue_ros.core.canvas import Canvas
from lightglue_ros.core.contract import EXTRACTOR, MATCHER
from lightglue_ros.core.pipeline import DEFAULT_MATCH_THRESHOLD
from tables import THREADS_SPIN, Table, keep, parser_of, print_head, print_table
from timing import interleaved

SIZE = 640, 480
Run = Callable[[Tensors], Tensors]


def compiled(path: Path, precision: str, threads: int) -> Run:
    """Return a function that runs a graph in OpenVINO, with products in that precision."""
    hints = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = openvino.Core().compile_model(str(path), "CPU", hints)
    request, names = model.create_infer_request(), [output.get_any_name() for output in model.outputs]
    inputs = [tensor.get_any_name() for tensor in model.inputs]

    def run(tensors: Tensors) -> Tensors:
        request.infer({name: tensors[name] for name in inputs}, share_inputs=True)
        return {name: request.get_tensor(name).data.copy() for name in names}

    return run


def can_read(path: Path) -> bool:
    """True if OpenVINO reads and compiles a file, tried in another process because it may crash."""
    code = f"import openvino; openvino.Core().compile_model({str(path)!r}, 'CPU')"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def partners(features: Tensors, matches: Tensors) -> set[tuple[int, ...]]:
    """Return the matched positions of both images, in half pixels."""
    (row,) = matches["matches"]
    first = np.nonzero(row >= 0)[0]
    ends = np.concatenate([features["keypoints"][0, first], features["keypoints"][1, row[first]]], axis=1)
    return set(map(tuple, (2 * ends).round().astype(int).tolist()))


def main() -> None:
    """Measure and print a table."""
    parser = parser_of(__doc__)
    parser.add_argument(
        "models", nargs="+", help="for CPUs, in the store; the first is what is compared with"
    )
    parser.add_argument("--portable", type=Path, nargs="+", required=True, help="folders of portable exports")
    parser.add_argument(
        "--precisions", nargs="+", default=["f32", "bf16", "f16"], help="of OpenVINO's products"
    )
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    batch = Canvas(SIZE, 3, 32).place(camera_images(SIZE))
    inputs = vars(batch) | {
        "pairs": np.array([[0, 1]]),
        "match_threshold": np.array([DEFAULT_MATCH_THRESHOLD], np.float32),
    }
    runs: dict[tuple[str, str], Run] = {}
    for model in arguments.models:
        ours = Exported(model, arguments.threads)
        inputs["max_keypoints"] = np.array([ours.info.max_keypoints], np.int64)
        runs[model, EXTRACTOR], runs[model, MATCHER] = ours._extractor.run, ours._matcher.run
    for folder in arguments.portable:
        for graph in (EXTRACTOR, MATCHER):
            path = folder / f"{graph}.onnx"
            readable = can_read(path)
            for precision in arguments.precisions:
                if readable:
                    name = f"OpenVINO {precision}, {folder.name}"
                    runs[name, graph] = compiled(path, precision, arguments.threads)
                else:
                    print(f"OpenVINO crashes on {path}", file=sys.stderr)
    print_head("OpenVINO's runtime", f"OpenVINO {openvino.__version__}", THREADS_SPIN)

    base = arguments.models[0]
    of_base = runs[base, EXTRACTOR](inputs)
    features, found = {}, {}
    for name, graph in runs:
        if graph == MATCHER:
            extract = runs.get((name, EXTRACTOR))
            features[name] = inputs | (extract(inputs) if extract else of_base)
            found[name] = partners(features[name], runs[name, MATCHER](features[name]))
    works = {
        f"{name}/{graph}": [
            lambda run=run, given=inputs if graph == EXTRACTOR else features[name]: run(given)
        ]
        for (name, graph), run in runs.items()
    }
    spent = interleaved(works, arguments.rounds, np.min)
    frame = sum(spent[f"{base}/{graph}"] for graph in (EXTRACTOR, MATCHER))
    rows = []
    for name in found:
        extractor, matcher = (1e3 * spent.get(f"{name}/{graph}", np.nan) for graph in (EXTRACTOR, MATCHER))
        same = 100 * len(found[name] & found[base]) / len(found[base])
        rows.append((name, extractor, matcher, 1e3 * frame / (extractor + matcher), len(found[name]), same))
    columns = ("", "extractor (ms)", "matcher (ms)", "times faster, frame", "matches", "the same (%)")
    table = Table(f"XFeat, two images, {arguments.threads} threads", columns, rows, x="", y="extractor (ms)")
    print_table(table)
    keep([table], arguments)


if __name__ == "__main__":
    main()
