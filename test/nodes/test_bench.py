"""`lightglue_ros bench`, run as a user runs it."""

import re
import subprocess
import sys

WORDS = ["bench", "--image-size", "320x224", "--frames", "3", "--rate", "2"]
PARAMETERS = {"max_keypoints": 64, "refine": "none", "num_threads": 1}


def test_bench_measures_the_node_with_any_of_its_parameters_and_cameras_of_any_rate(ros, model_folder):
    given = [word for name, value in PARAMETERS.items() for word in ("-p", f"{name}:={value}")]
    done = subprocess.run(
        [sys.executable, "-m", "lightglue_ros", *WORDS, *given],
        capture_output=True,
        text=True,
        timeout=120.0,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "stereo 320x224, at most 64 keypoints, 3 frames" in done.stdout
    assert "with max_keypoints:=64, refine:=none, num_threads:=1" in done.stdout
    assert "canvas 320x224, at most 64 keypoints" in done.stderr
    # rcl would take the parameters of the command for names of topics.
    assert "remap rule" not in done.stderr
    assert "running node, cameras at 2 Hz" in done.stdout
    # The cameras limit a node that is not held up by others.
    rate = r"[\d.]+ Hz(, limited by the cameras \(try a higher --rate\))?"
    assert re.fullmatch(rate, done.stdout.splitlines()[-1])
