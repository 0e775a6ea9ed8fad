"""The checks of bench/gpu.py on the CPU, and the way of a pack in parts."""

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

import attention_graphs
import gpu_pack
from gpu_steps import STEPS
from gpu_steps.attention import FORMS
from gpu_steps.job import Export
from gpu_steps.rows import append, read_rows
from lightglue_ros.core.image_files import write_image

BENCH = Path(__file__).parents[2] / "bench"
DEADLINE = 600  # seconds
LEAST = "xfeat_104_104"  # the fastest form of attention


@pytest.fixture
def pack(tmp_path, model_folder, motorcycle):
    """A pack of one model, with a reference of one pair."""
    folder = tmp_path / "pack"
    for name in ("models", "images", "attention"):
        (folder / name).mkdir(parents=True)
    (folder / "models" / "xfeat").symlink_to(model_folder)
    for name, image in zip("ab", motorcycle, strict=True):
        write_image(str(folder / "images" / f"{name}.png"), image)
    gpu_pack.write_reference(Export(folder / "models" / "xfeat"), folder, folder)
    graph = attention_graphs.attention_graph(FORMS[LEAST], onnx.TensorProto.FLOAT)
    onnx.save(graph, folder / "attention" / f"{LEAST}-fp32.onnx")
    gpu_pack.write_contents(folder)
    return folder


def test_every_step_reports_and_its_checks_pass(pack, tmp_path):
    options = ["--provider", "cpu", "--frames", 2, "--minutes", 20, "--out", tmp_path / "out"]
    command = [sys.executable, BENCH / "gpu.py", "--pack", pack, *options]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=DEADLINE, check=False)
    rows = read_rows(tmp_path / "out" / "checks.jsonl")
    assert {row["step"] for row in rows} == set(STEPS), done.stderr
    assert [row for row in rows if row["ok"] is False] == []
    assert done.returncode == 0
    assert all(f"| {row['step']} | {row['check']} |" in done.stdout for row in rows)
    pairs = next(row["figures"] for row in rows if row["check"] == "xfeat pairs")
    assert (pairs["equal"], pairs["equal_keypoints"]) == (1.0, 1.0)


def test_a_check_that_ends_its_process_is_a_row_and_the_next_one_runs(tmp_path, monkeypatch):
    import gpu

    steps = tmp_path / "gpu_steps"
    steps.mkdir()
    for file in (BENCH / "gpu_steps").glob("*.py"):
        (steps / file.name).symlink_to(file)
    (steps / "facts.py").unlink()
    (steps / "facts.py").write_text(
        "import os\nfrom gpu_steps.job import Outcome\n"
        "def checks(job):\n    yield 'dies', lambda: os._exit(7)\n    yield 'lives', lambda: Outcome(True)\n"
    )
    monkeypatch.setattr(gpu, "python_path", lambda: f"{tmp_path}:{':'.join(sys.path)}")
    monkeypatch.setattr(gpu, "RUN_STEP", steps / "run_step.py")
    job = {"pack": str(tmp_path), "provider": "cpu", "frames": 2, "models": []}
    gpu.run_step("facts", job, tmp_path / "checks.jsonl", gpu.time.monotonic() + DEADLINE)
    rows = read_rows(tmp_path / "checks.jsonl")
    assert [(row["check"], row["ok"]) for row in rows] == [("dies", False), ("lives", True)]
    assert "ended with 7" in rows[0]["error"]


def test_a_row_is_read_as_it_was_written_whatever_the_error_says(tmp_path):
    row = {"error": "ValueError: mean: NaN", "figures": {"mean_error": float("nan"), "frames": [1, 2]}}
    append(tmp_path / "rows", row)
    (found,) = read_rows(tmp_path / "rows")
    assert found == row | {"figures": {"mean_error": "nan", "frames": [1, 2]}}


def test_a_pack_comes_out_of_its_parts_as_it_was_and_a_damaged_part_is_named(tmp_path):
    pack, parts = tmp_path / "pack", tmp_path / "parts"
    (pack / "models").mkdir(parents=True)
    data = bytes(range(256)) * 400
    for number in range(20):
        (pack / "models" / f"{number}.onnx").write_bytes(data[number:])
    gpu_pack.split(pack, parts, 1 << 19)
    assert len(json.loads((parts / "parts.json").read_text())) > 2
    command = [sys.executable, str(parts / "gpu_unpack.py"), str(parts), str(tmp_path / "out")]
    subprocess.run(command, timeout=DEADLINE, check=True)
    assert (tmp_path / "out" / "models" / "7.onnx").read_bytes() == data[7:]
    (parts / "part-02").write_bytes(b"other")
    done = subprocess.run(command, timeout=DEADLINE, capture_output=True, text=True, check=False)
    assert f"{parts / 'part-02'} is damaged" in done.stderr
