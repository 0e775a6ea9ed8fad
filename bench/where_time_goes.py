"""Measures the time of each operator of a model's graphs, and how close the graphs are to the limit.

    . tools/env.sh
    python bench/where_time_goes.py disk [--keypoints 512] [--image-size 640 480]

The extractor on the motorcycle pair's first image, the matcher on the pair. Times of operators are from ONNX
Runtime's profile of the graph as it runs it, which takes a little longer than a run without one; of the
operators that contain others (If, Loop) only what lies in them is counted.

The limit is the time that the graph's matrix products would take if nothing else were to be done: MatMul,
Gemm, Conv and MultiHeadAttention are counted (two operations for each multiplication), with the shapes that
they have in the graph as it was exported, and each shape is multiplied in ONNX Runtime by itself in fp32, in
turns with the graph; the fastest round counts of both. A convolution counts as the product of its kernels
with the patches that they look at; ONNX Runtime does not lay those out, so it gets the rate of a product that
suits the processor. Products that make up less than a hundredth of the operations are not timed, but take the
rate of the others.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from exported import Exported, Tensors
from features import filled
from lightglue_ros.cli.bench import camera_images
from lightglue_ros.core.contract import EXTRACTOR, INPUTS, MATCHER
from lightglue_ros.core.pipeline import DEFAULT_MATCH_THRESHOLD
from lightglue_ros.core.providers import onnxruntime
from lightglue_ros.core.session import GraphSession
from lightglue_ros.core.store import find_model
from lightglue_ros.errors import LightGlueRosError
from tables import THREADS_SPIN, Cell, Table, keep, parser_of, print_head, print_table
from timing import Work, interleaved

CONTAINERS = ("If", "Loop", "Scan")
MATMULS = ("MatMul", "Gemm", "FusedMatMul", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul")
CONVOLUTIONS = ("Conv", "FusedConv", "DeformConv", "ConvInteger")
ATTENTIONS = ("MultiHeadAttention", "Attention")
LEAST_SHARE = 0.01  # of all operations, of a product that is timed by itself
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Product:
    """A batch of matrix products [rows, inner] x [inner, columns].

    Attributes:
        kind: ``tensors``; ``weight`` where the second matrix is a constant, the same for the whole batch; or
            ``kernels`` of a convolution.
    """

    batch: int
    rows: int
    inner: int
    columns: int
    kind: str

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * self.batch * self.rows * self.inner * self.columns

    @property
    def timed(self) -> Product:
        """Product whose rate it is given."""
        return SUITS_PROCESSOR if self.kind == "kernels" else self

    def __str__(self) -> str:
        batch = f"{self.batch} x " if self.batch > 1 else ""
        return f"{batch}[{self.rows}, {self.inner}] x [{self.inner}, {self.columns}]"


SUITS_PROCESSOR = Product(1, 1024, 512, 512, "weight")


@dataclass(frozen=True)
class Node:
    """An operator that ran.

    Attributes:
        operator: its type.
        seconds: that it took.
        inputs: shapes of its inputs, without those that are left out.
        outputs: of its outputs.
    """

    operator: str
    seconds: float
    inputs: list[Shape]
    outputs: list[Shape]


def main() -> None:
    """Measure and print the tables."""
    arguments = parse_arguments()
    try:
        files = find_model(arguments.model)
        exported = Exported(arguments.model, arguments.threads)
        inputs = inputs_of_graphs(exported, arguments)
    except LightGlueRosError as error:
        sys.exit(str(error))
    print_head(f"Where the time of {arguments.model} goes", THREADS_SPIN)
    tables, limits = [], []
    for graph in arguments.graphs:
        path = {EXTRACTOR: files.extractor, MATCHER: files.matcher}[graph]
        nodes = profile(path, graph, inputs[graph], arguments.threads, arguments.rounds)
        tables.append(table_of_operators(graph, nodes, arguments.rounds, arguments.top))
        print_table(tables[-1])
        products, limit = measure_limit(path, graph, inputs[graph], arguments)
        tables.append(products)
        print_table(products)
        limits.append(limit)
    tables.append(
        Table(
            "The limit",
            ("graph", "ms", "GFLOP", "GFLOP/s alone", "limit (ms)", "share of the limit (%)"),
            limits,
            x="graph",
            y="share of the limit (%)",
        )
    )
    print_table(tables[-1])
    keep(tables, arguments)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = parser_of(__doc__)
    parser.add_argument("model", nargs="?", default="xfeat", help="a name in the model store, or a folder")
    parser.add_argument("--graphs", nargs="+", choices=(EXTRACTOR, MATCHER), default=[EXTRACTOR, MATCHER])
    parser.add_argument("--image-size", type=int, nargs=2, default=(640, 480))
    parser.add_argument("--keypoints", type=int, help="per image, for the matcher; by default all slots")
    parser.add_argument("--top", type=int, default=12, help="so many operators, the others together")
    parser.add_argument("--threads", type=int, default=0, help="0 is one per core")
    return parser.parse_args()


def inputs_of_graphs(exported: Exported, arguments: argparse.Namespace) -> dict[str, Tensors]:
    """The tensors that the two graphs are given."""
    size, slots = tuple(arguments.image_size), exported.info.max_keypoints
    images = camera_images(size)
    pair = exported.extract(exported.place(images, size))
    first = vars(exported.place(images[:1], size)) | {"max_keypoints": np.array([slots], np.int64)}
    matched = filled(pair, arguments.keypoints or slots, slots) | {
        "pairs": np.array([[0, 1]]),
        "match_threshold": np.array([DEFAULT_MATCH_THRESHOLD], np.float32),
    }
    given = {EXTRACTOR: first, MATCHER: matched}
    return {graph: {name: tensors[name] for name in INPUTS[graph]} for graph, tensors in given.items()}


def profile(path: Path, graph: str, inputs: Tensors, threads: int, runs: int) -> list[Node]:
    """Return the operators of some runs of a graph, run as we run it."""
    with TemporaryDirectory() as folder:
        with profiled_sessions(folder):
            session = GraphSession(path, graph, provider="cpu", num_threads=threads, spin_threads=True)
        for _ in range(1 + runs):
            session.run(inputs)
        return nodes_after_first_run(session._session.end_profiling())


@contextmanager
def profiled_sessions(folder: str) -> Iterator[None]:
    """Make ONNX Runtime profile the sessions that are created in this block, into a folder."""
    ort = onnxruntime()
    make = ort.SessionOptions

    def options() -> Any:
        profiled = make()
        profiled.enable_profiling = True
        profiled.profile_file_prefix = str(Path(folder) / "profile")
        return profiled

    with patch.object(ort, "SessionOptions", options):
        yield


def nodes_after_first_run(profile: str) -> list[Node]:
    """Read the operators that ran from a profile of ONNX Runtime, without the first run, which warms up."""
    events = json.loads(Path(profile).read_text())
    first = next(event for event in events if event["name"] == "model_run")
    return [
        Node(
            event["args"]["op_name"],
            1e-6 * event["dur"],
            _shapes(event["args"]["input_type_shape"]),
            _shapes(event["args"]["output_type_shape"]),
        )
        for event in events
        if event["name"].endswith("_kernel_time")
        and event["ts"] >= first["ts"] + first["dur"]
        and event["args"]["op_name"] not in CONTAINERS
    ]


def _shapes(tensors: Sequence[Mapping[str, Sequence[int]]]) -> list[Shape]:
    """Return the shapes from a profile's list of {type: shape}."""
    return [tuple(shape) for tensor in tensors for shape in tensor.values()]


def table_of_operators(graph: str, nodes: Sequence[Node], runs: int, top: int) -> Table:
    """A row for each type of operator, those that take longest first."""
    seconds, counts = Counter(), Counter()
    for node in nodes:
        seconds[node.operator] += node.seconds / runs
        counts[node.operator] += 1
    longest = [operator for operator, _ in seconds.most_common(top)]
    rows = [(operator, counts[operator] // runs, seconds[operator]) for operator in longest]
    others = [operator for operator in seconds if operator not in longest]
    if others:
        number, spent = (sum(of[operator] for operator in others) for of in (counts, seconds))
        rows.append(("others", number // runs, spent))
    total = sum(seconds.values())
    return Table(
        f"{graph}.onnx, operators of a run",
        ("operator", "times", "ms", "share (%)"),
        [(name, count, 1e3 * spent, 1e2 * spent / total) for name, count, spent in rows],
        x="operator",
        y="ms",
    )


def measure_limit(
    path: Path, graph: str, inputs: Tensors, arguments: argparse.Namespace
) -> tuple[Table, tuple[Cell, ...]]:
    """The graph's matrix products, each timed alone; and the row that compares them with the graph."""
    products = Counter(products_of(path, inputs))
    operations = {product: product.operations * count for product, count in products.items()}
    total = sum(operations.values())
    large = [product for product, count in operations.items() if count >= LEAST_SHARE * total]
    large.sort(key=operations.get, reverse=True)

    session = GraphSession(path, graph, provider="cpu", num_threads=arguments.threads, spin_threads=True)
    works = {str(product.timed): [alone(product.timed, arguments.threads)] for product in large}
    works[graph] = [lambda: session.run(inputs)]
    for (work,) in works.values():
        work()
    seconds = interleaved(works, arguments.rounds, np.min)

    rates = {product: product.timed.operations / seconds[str(product.timed)] for product in large}
    rows = [
        (str(product), product.kind, products[product], 1e-9 * operations[product], 1e-9 * rates[product])
        for product in large
    ]
    title = f"{graph}.onnx, matrix products of a run, and how fast each is alone"
    table = Table(title, ("product", "of", "times", "GFLOP", "GFLOP/s"), rows, x="product", y="GFLOP/s")
    rate = sum(operations[product] for product in large) / sum(
        operations[product] / rates[product] for product in large
    )
    limit, spent = total / rate, seconds[graph]
    return table, (graph, 1e3 * spent, 1e-9 * total, 1e-9 * rate, 1e3 * limit, 1e2 * limit / spent)


def products_of(path: Path, inputs: Tensors) -> list[Product]:
    """All matrix products of a run of the graph as it was exported."""
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3  # errors only
    # Weights that were brought into another layout are not in the profile.
    options.add_session_config_entry("session.disable_prepacking", "1")
    heads = heads_of(path)
    with TemporaryDirectory() as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for _ in range(2):
            session.run(None, inputs)
        nodes = nodes_after_first_run(session.end_profiling())
    return [product for node in nodes for product in products_of_node(node, heads)]


def heads_of(path: Path) -> int:
    """Return the number of heads of a graph's attention operators, which a profile does not have."""
    nodes = onnx.load(path, load_external_data=False).graph.node
    found = {
        attribute.i
        for node in nodes
        for attribute in node.attribute
        if attribute.name in ("num_heads", "q_num_heads")
    }
    return max(found, default=1)


def products_of_node(node: Node, heads: int) -> list[Product]:
    """Return the matrix products of an operator; an operator that is not counted has none."""
    if node.operator in MATMULS:
        (left, right, *_), (out, *_) = node.inputs, node.outputs
        inner = math.prod(left[-2:]) // out[-2]  # also of one that lies on its side
        if len(right) == 2:
            return [Product(1, math.prod(out[:-1]), inner, out[-1], "weight")]
        return [Product(math.prod(out[:-2]), *out[-2:-1], inner, out[-1], "tensors")]
    if node.operator in CONVOLUTIONS:
        kernels, (count, channels, *size) = node.inputs[1], node.outputs[0]
        groups = node.inputs[0][1] // kernels[1]
        inner = math.prod(kernels[1:])
        return [Product(count * groups, math.prod(size), inner, channels // groups, "kernels")]
    if node.operator in ATTENTIONS:
        query, key, value = (_by_head(shape, heads) for shape in node.inputs[:3])
        batch = math.prod(query[:2])
        return [
            Product(batch, query[2], query[3], key[2], "tensors"),
            Product(batch, query[2], key[2], value[3], "tensors"),
        ]
    return []


def _by_head(shape: Shape, heads: int) -> Shape:
    """[B, L, H * D] or [B, H, L, D] as the latter."""
    if len(shape) == 4:
        return shape
    batch, length, width = shape
    return batch, heads, length, width // heads


def alone(product: Product, threads: int) -> Work:
    """Return a function that computes a matrix product in ONNX Runtime, with a weight or with two tensors."""
    random = np.random.default_rng(0)
    left = random.standard_normal((product.batch, product.rows, product.inner), np.float32)
    right = random.standard_normal((product.batch, product.inner, product.columns), np.float32)
    tensors = {"left": left} if product.kind == "weight" else {"left": left, "right": right}
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["left", "right"], ["out"])],
        "product",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, it.shape) for name, it in tensors.items()],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(right[0], "right")] if product.kind == "weight" else [],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = onnxruntime().SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime().InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, tensors)


if __name__ == "__main__":
    main()
