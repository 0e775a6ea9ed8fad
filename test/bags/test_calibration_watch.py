"""The bag command tells whether the calibration of a stereo pair holds."""

import json

import numpy as np
from recordings import BEGIN, camera_info, image_message, stereo, write_bag


def test_row_errors_are_in_the_summary_and_too_large_ones_are_a_finding(motorcycle, match_here, tmp_path):
    def turned(picture, camera, stamp):
        return image_message(np.roll(picture, 2 * (camera == "right"), axis=0), camera, stamp)

    about = {}
    for name, make in (("good", {}), ("turned", {"make": turned})):
        rows = [*stereo(motorcycle, frames=34, **make)]
        rows += [(f"/{camera}/camera_info", camera_info(camera), BEGIN) for camera in ("left", "right")]
        bag = write_bag(tmp_path / name, "mcap", rows)
        output, file = tmp_path / f"{name}_matched", tmp_path / f"{name}.json"
        for _ in range(2):  # the second time it is done already
            status, out, _ = match_here(bag, "-o", output, "--json", file, "-p", "max_keypoints:=128")
            assert status == 0
            (about[name],) = json.loads(file.read_text())
            errors = about[name]["row_errors"]["left:right"]
            line = f"pair left:right: row error p50 {errors['p50']:.2f} px, p95 {errors['p95']:.2f} px"
            assert f"bag {bag}: {line}" in out
        assert list(about[name]["row_errors"]) == ["left:right"]
    assert about["good"]["row_errors"]["left:right"]["p50"] < 0.5
    assert about["turned"]["row_errors"]["left:right"]["p50"] > 0.5
    assert "calibration" not in {one["kind"] for one in about["good"]["findings"]}
    (found,) = (one for one in about["turned"]["findings"] if one["kind"] == "calibration")
    assert found["about"] == "left:right"
    assert "px (limit 0.50 px)" in found["cause"]
    assert "the calibration of pair left:right does not hold: median row error" in out
