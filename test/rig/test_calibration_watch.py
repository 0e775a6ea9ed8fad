"""The calibration of a stereo pair is watched by the rows of its matches."""

import re
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from pixel_image import PixelImage

from lightglue_ros.core import ConfigError, MatchPipeline, PairMatches
from lightglue_ros.core.mono16 import Mono16Range
from lightglue_ros.rig.calibration_watch import LEAST_ERRORS, CalibrationWatch, RowErrors, StereoRows
from lightglue_ros.rig.frame import FrameResult, FrameSettings, RigFrame, RigPair
from lightglue_ros.rig.processor import FrameProcessor
from lightglue_ros.rig.rig import Rig
from lightglue_ros.rig.verification import Intrinsics
from lightglue_ros.rosdata.camera_info import RigCalibration

CANVAS, LIMIT = (640, 480), 0.5
SECOND = 1_000_000_000
RIG = Rig.parse(["left", "right"], ["left:right", "left@-1:left"])
SETTINGS = FrameSettings(RIG, CANVAS, None, 0.1, Mono16Range())
CAMERA = Intrinsics(np.diag([400.0, 400.0, 1.0]))


def matches_of(keypoints0, keypoints1, checked=None):
    count = len(keypoints0)
    return PairMatches(
        np.asarray(keypoints0, np.float32).reshape(-1, 2),
        np.asarray(keypoints1, np.float32).reshape(-1, 2),
        np.ones(count, np.float32),
        np.arange(count, dtype=np.int32),
        np.arange(count, dtype=np.int32),
        9,
        checked,
    )


class Calibrated:
    """Rectified cameras, or none that are known."""

    def __init__(self, is_known=True):
        self._is_known = is_known

    def stereo_rows(self, first, second, image_sizes):
        if not self._is_known:
            raise ConfigError("not known")
        return StereoRows((CAMERA, CAMERA), (np.eye(3), np.eye(3)))


def result_of(errors, size=CANVAS):
    image = SimpleNamespace(width=size[0], height=size[1])
    rows = np.column_stack([np.zeros(len(errors)), errors])
    pair = RigPair(image, image, matches_of(np.zeros((len(errors), 2)), rows))
    return FrameResult(SETTINGS, [image, image], [None, None], [], [pair, pair])


def test_percentiles_are_those_of_all_errors_to_a_step():
    errors = np.random.default_rng(0).exponential(1.0, 5000)
    first, counted = RowErrors(), RowErrors()
    first.add(errors[:2000], 1.0)
    counted.add(errors[2000:], 1.0)
    counted.update(first)
    assert len(counted) == 5000
    for percent in (5, 50, 95):
        assert counted.percentile(percent) == pytest.approx(np.percentile(errors, percent), abs=0.03)
    # Beyond the last step, and what is no number.
    counted.add(np.array([1e9] * 9000 + [np.nan, np.inf]), 1.0)
    assert counted.percentile(95) == pytest.approx(20.0, abs=0.02)
    assert RowErrors().percentile(50) == 0.0


def test_only_pairs_of_two_cameras_with_a_known_geometry_are_watched():
    watch = CalibrationWatch()
    watch.update(result_of([3.0] * LEAST_ERRORS), 0, Calibrated(is_known=False), CANVAS)
    assert not watch.errors
    watch.update(result_of([3.0] * LEAST_ERRORS), 0, Calibrated(), CANVAS)
    assert list(watch.errors) == ["left:right"]
    assert watch.problem(LIMIT) == (
        "the calibration of pair left:right does not hold: median row error 3.01 px (limit 0.50 px)"
    )


def test_matches_that_failed_the_check_do_not_count():
    checked = np.array([True, True, False])
    matches = matches_of(np.zeros((3, 2)), [(9, 1), (5, -2), (0, 50)], checked)
    rows = StereoRows((CAMERA, CAMERA), (np.eye(3), np.eye(3)))
    np.testing.assert_allclose(rows.errors(matches), [1.0, 2.0])
    assert not len(rows.errors(matches_of([], [])))


@pytest.mark.parametrize(
    ("count", "limit", "size"),
    [
        (LEAST_ERRORS - 1, LIMIT, CANVAS),  # a few wrong matches
        (LEAST_ERRORS, 0.0, CANVAS),  # off
        (LEAST_ERRORS, LIMIT, (3840, 2160)),  # compared at a third of its size
    ],
)
def test_few_matches_large_images_and_limit_0_are_no_alarm(count, limit, size):
    watch = CalibrationWatch()
    watch.update(result_of([1.0] * count, size), 0, Calibrated(), CANVAS)
    assert not watch.problem(limit)


def test_the_last_minute_counts_also_after_time_was_set_back():
    watch = CalibrationWatch()
    for second in range(300):
        watch.update(result_of([float(second < 230)] * 10), second * SECOND, Calibrated(), CANVAS)
        assert len(watch.errors["left:right"]) <= 600
    # 230 to 299 are right, and all others are older than a minute.
    assert watch.errors["left:right"].percentile(95) < 0.1
    watch.update(result_of([4.0] * 10), 7 * SECOND, Calibrated(), CANVAS)
    assert len(watch.errors["left:right"]) == 10


class Drone:
    """EuRoC's cameras: 24 frames, and the calibration as CameraInfo has it.

    The images are raw, or rectified as if the right camera had turned by 0.3 degrees since the calibration.
    """

    SIZE = (752, 480)

    def __init__(self, folder):
        self._folders = [folder / "cam0", folder / "cam1"]
        texts = [(folder / f"cam{camera}.yaml").read_text() for camera in range(2)]
        (pose0, self.k0, self.d0), (pose1, self.k1, self.d1) = map(self._calibration, texts)
        self.names = sorted(file.name for file in self._folders[0].glob("*.png"))
        assert len(self.names) == 24
        between = np.linalg.inv(pose1) @ pose0
        self.r0, self.r1, self.p0, self.p1, *_ = cv2.stereoRectify(
            self.k0, self.d0, self.k1, self.d1, self.SIZE, between[:3, :3], between[:3, 3], alpha=0
        )

    @staticmethod
    def _calibration(text):
        def numbers(name):
            found = re.search(rf"{name}:\s*\[([^\]]*)\]", text)
            return np.array([float(it) for it in found[1].split(",")])

        fx, fy, cx, cy = numbers("intrinsics")
        matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        return numbers("data").reshape(4, 4), matrix, numbers("distortion_coefficients")

    def calibration(self, name):
        calibration = RigCalibration(["left", "right"], [f"/left/{name}", f"/right/{name}"])
        width, height = self.SIZE
        roi = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)
        whole = {"width": width, "height": height, "binning_x": 0, "binning_y": 0, "roi": roi}
        cameras = (
            (self.k0, self.d0, self.r0, self.p0),
            (self.k1, self.d1, self.r1, self.p1),
        )
        for camera, (k, d, r, p) in enumerate(cameras):
            model = {"distortion_model": "plumb_bob", "d": d}
            matrices = {"k": k.ravel(), "r": r.ravel(), "p": p.ravel()}
            calibration.set_info(camera, SimpleNamespace(**whole, **model, **matrices))
        return calibration

    def images(self, turn=None):
        """Read the frames: raw images, or with a turn in degrees about x, y, z rectified ones."""
        maps = None
        if turn is not None:
            turned = cv2.Rodrigues(np.radians(np.array(turn, float)))[0]
            float32 = cv2.CV_32F
            maps = (
                cv2.initUndistortRectifyMap(self.k0, self.d0, self.r0, self.p0, self.SIZE, float32),
                cv2.initUndistortRectifyMap(self.k1, self.d1, turned @ self.r1, self.p1, self.SIZE, float32),
            )
        for name in self.names:
            pair = [cv2.imread(str(folder / name), cv2.IMREAD_GRAYSCALE) for folder in self._folders]
            if maps is not None:
                pair = [cv2.remap(image, *of, cv2.INTER_LINEAR) for image, of in zip(pair, maps, strict=True)]
            yield int(name.removesuffix(".png")), pair


@pytest.fixture(scope="module")
def drone(shared_data):
    return Drone(shared_data / "euroc_stereo")


@pytest.fixture(scope="module")
def pipeline(model_folder):
    return MatchPipeline(model_folder, "cpu", CANVAS)


@pytest.fixture
def watched(drone, pipeline):
    """Watches the calibration until it does not hold, and returns problem and median."""

    def run(turn=None, refine="auto", frames=24, raw=None):
        calibration = drone.calibration("image_rect" if turn is not None else "image_raw")
        if raw is not None:
            calibration._infos[1].r = (cv2.Rodrigues(np.radians(raw))[0] @ drone.r1).ravel()
        # Refined matches show it on a small canvas, too; whole pixels do not.
        canvas = CANVAS if refine == "none" else (320, 240)
        rig = Rig.parse(["left", "right"], ["left:right"])
        settings = FrameSettings(rig, canvas, 512, 0.1, Mono16Range(), "none", refine)
        processor, watch = FrameProcessor(pipeline, settings), CalibrationWatch()
        for number, (stamp, images) in enumerate(drone.images(turn)):
            frame = RigFrame(tuple(map(PixelImage, images)), (stamp, stamp), frozenset(), (0, 0))
            watch.update(processor.process(frame, settings), stamp, calibration, pipeline.image_size)
            if watch.problem(LIMIT) or number + 1 == frames:
                return watch.problem(LIMIT), watch.errors["left:right"].percentile(50)
        raise AssertionError("the recording is too short")

    return run


@pytest.mark.parametrize("refine", ["auto", "none"])
def test_a_camera_that_turned_by_a_third_of_a_degree_is_reported_within_24_frames(watched, refine):
    for turn in ((0.3, 0, 0), (0, 0, -0.3)):
        problem, median = watched(turn, refine)
        assert problem.startswith("the calibration of pair left:right does not hold"), turn
        assert median > 2 * LIMIT


@pytest.mark.parametrize(("refine", "frames"), [("auto", 24), ("none", 4)])
def test_cameras_as_calibrated_are_no_alarm(watched, refine, frames):
    problem, median = watched((0, 0, 0), refine, frames)
    assert (problem, median < LIMIT / 2) == ("", True)


def test_rows_do_not_show_a_turn_about_the_vertical(watched):
    assert watched((0, 0.3, 0), frames=3)[0] == ""


def test_raw_images_are_watched_by_r_and_p_of_their_camera_info(watched):
    problem, median = watched(frames=3)
    assert (problem, median < LIMIT / 2) == ("", True)
    for turn in ((0.3, 0, 0), (0, 0, 0.3)):
        assert watched(raw=turn)[0], turn
