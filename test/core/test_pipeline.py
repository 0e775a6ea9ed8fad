"""The runtime on the exported XFeat + LighterGlue; what the graphs promise is tested in test/export."""

import shutil
import threading

import cv2
import numpy as np
import pytest
from gpus import has_gpu
from unusual_files import LFS_POINTER

from lightglue_ros.cli.demo import same_row_share
from lightglue_ros.core import (
    ConfigError,
    Features,
    ImageError,
    MatchPipeline,
    ModelError,
    PairMatches,
    ProviderError,
)
from lightglue_ros.core.canvas import Placement
from lightglue_ros.core.contract import CANVAS_MARGINS
from lightglue_ros.core.features import MATCH_ARRAYS
from lightglue_ros.core.providers import is_in_build
from lightglue_ros.core.refinement import Refiner
from lightglue_ros.core.session import GraphSession
from lightglue_ros.core.store import find_model

# Files that other tests left open are closed at any time.
pytestmark = pytest.mark.filterwarnings("error", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def pipeline(model_folder):
    return MatchPipeline(model_folder, "cpu", image_size=(640, 480), refine="none")


def assert_same(found, expected):
    for field in MATCH_ARRAYS:
        np.testing.assert_allclose(getattr(found, field), getattr(expected, field), atol=1e-4)


def assert_same_bits(found, expected):
    for arrays in zip(vars(found).values(), vars(expected).values(), strict=True):
        np.testing.assert_array_equal(*arrays)


def assert_empty(matches):
    shapes = [getattr(matches, field).shape for field in MATCH_ARRAYS]
    assert shapes == [(0, 2), (0, 2), (0,), (0,), (0,)]


def test_the_motorcycle_pair_is_matched_as_by_the_original(pipeline, motorcycle):
    (pair,) = pipeline.match(motorcycle, [(0, 1)])
    assert abs(len(pair) - 537) <= 0.03 * 537
    assert same_row_share(pair.keypoints0, pair.keypoints1, 3.0) >= 0.98
    assert same_row_share(pair.keypoints0, pair.keypoints1, 1.5) >= 0.91
    assert pair.keypoints0.dtype == pair.keypoints1.dtype == pair.scores.dtype == np.float32
    assert pair.indices0.dtype == pair.indices1.dtype == np.int32
    features = pipeline.extract(motorcycle)
    np.testing.assert_array_equal(pair.keypoints0, features.keypoints[0][pair.indices0])
    np.testing.assert_array_equal(pair.keypoints1, features.keypoints[1][pair.indices1])


def test_refined_matches_are_those_of_the_model_and_closer_to_the_same_row(pipeline, motorcycle, monkeypatch):
    (expected,) = pipeline.match(motorcycle, [(0, 1)])
    monkeypatch.setattr(pipeline, "refiner", Refiner("auto", "xfeat"))
    (found,) = pipeline.match(motorcycle, [(0, 1)])
    np.testing.assert_array_equal(found.keypoints0, expected.keypoints0)
    np.testing.assert_array_equal(found.indices1, expected.indices1)
    shares = [same_row_share(pair.keypoints0, pair.keypoints1, 0.5) for pair in (expected, found)]
    assert shares[1] > shares[0]
    rights = found.keypoints0[found.checked], found.keypoints1[found.checked]
    assert same_row_share(*rights, 0.5) > shares[1]
    assert found.checked.sum() > 300


def test_a_larger_canvas_gives_the_same_features_unless_it_changes_the_scale(model_folder, motorcycle):
    pipeline = MatchPipeline(model_folder, "cpu", image_size=(800, 544))
    expected = pipeline.extract(motorcycle)
    pipeline.set_image_size((1248, 960))
    assert_same_bits(pipeline.extract(motorcycle), expected)
    assert pipeline.placement((741, 500)) == Placement((741, 500), (768, 544))


def test_wide_images_get_matches_on_the_part_of_the_canvas_that_they_need_as_on_the_whole_canvas(
    model_folder, motorcycle, monkeypatch
):
    """As many and as good ones; not the same to the last because results depend on the size of the canvas."""
    wide = [image[130:330] for image in motorcycle]
    pipeline = MatchPipeline(model_folder, "cpu", image_size=(640, 480))
    assert pipeline.placement((741, 200)) == Placement((640, 173), (640, 224))
    (found,) = pipeline.match(wide, [(0, 1)])
    monkeypatch.delitem(CANVAS_MARGINS, "xfeat")
    pipeline.set_image_size((640, 480))
    assert pipeline.placement((741, 200)) == Placement((640, 173), (640, 480))
    (expected,) = pipeline.match(wide, [(0, 1)])
    of_part, of_whole = ({tuple(row) for row in it.keypoints0} for it in (found, expected))
    assert len(of_part & of_whole) >= 0.8 * len(of_whole)
    of_part, of_whole = (
        len(it) * same_row_share(it.keypoints0, it.keypoints1, 1.5) for it in (found, expected)
    )
    assert of_part >= 0.97 * of_whole


def test_each_image_gets_the_features_that_it_gets_alone_whatever_the_sizes_of_the_others(
    pipeline, motorcycle, noise
):
    images = [motorcycle[0], motorcycle[1][:200], None, motorcycle[1], noise(40, 50)]
    together = pipeline.extract(images)
    for slot, image in enumerate(images):
        alone, of_image = pipeline.extract([image]), together.of_image(slot)
        for found, expected in zip(of_image.by_name().values(), alone.by_name().values(), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-4)
    assert not together.mask[2].any()
    assert together.image_sizes.tolist() == [[741, 500], [741, 200], [1, 1], [741, 500], [50, 40]]


def test_images_of_other_sizes_and_missing_ones_do_not_change_a_pair(pipeline, motorcycle, noise):
    left, right = motorcycle
    (alone,) = pipeline.match([left, right], [(0, 1)])
    batch = [noise(100, 300), right, None, left[:, :, 0], left]
    pairs = [(0, 1), (4, 1), (2, 4), (3, 4), (4, 2)]
    results = pipeline.match(batch, pairs)
    assert_same(results[1], alone)
    assert_empty(results[2])
    assert_empty(results[4])


def test_grey_cameras_alone_and_beside_colour_ones_are_matched_the_same(pipeline, motorcycle):
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in motorcycle]
    (alone,) = pipeline.match(grey, [(0, 1)])
    (mixed, _) = pipeline.match([*grey, motorcycle[0]], [(0, 1), (2, 1)])
    (as_colour,) = pipeline.match([np.dstack([image] * 3) for image in grey], [(0, 1)])
    assert len(alone) > 400
    assert_same(mixed, alone)
    assert_same(as_colour, alone)


def test_coordinates_are_those_of_the_original_image(pipeline, motorcycle):
    """The same picture with a border around it: matches move by the border, whatever the canvas does."""
    left, right = motorcycle
    (plain,) = pipeline.match([left, right], [(0, 1)])
    large = np.repeat(np.repeat(right, 2, axis=0), 2, axis=1)
    (doubled,) = pipeline.match([left, large], [(0, 1)])
    _, first, second = np.intersect1d(plain.indices0, doubled.indices0, return_indices=True)
    # A pixel's centre c becomes 2 c + 0.5 when every pixel becomes 2 x 2.
    difference = doubled.keypoints1[second] - (2 * plain.keypoints1[first] + 0.5)
    assert len(first) > 300
    assert np.all(np.abs(np.median(difference, axis=0)) < 0.3)
    assert np.mean(np.abs(difference).max(axis=1) < 3.0) > 0.9


def test_black_images_one_keypoint_no_pairs_and_no_images(pipeline, motorcycle):
    black = np.zeros((480, 640), np.uint8)
    for images in ([black, black], [black, motorcycle[0]], [None, None]):
        assert_empty(pipeline.match(images, [(0, 1)])[0])
    pipeline.max_keypoints = 1
    (pair,) = pipeline.match(motorcycle, [(0, 1)])
    pipeline.max_keypoints = pipeline.info.max_keypoints
    assert len(pair) <= 1
    assert np.isfinite(pair.scores).all()
    assert pipeline.match(motorcycle, []) == []
    assert pipeline.match([], []) == []


def test_thresholds_and_caps_change_between_frames(pipeline, motorcycle):
    (all_matches,) = pipeline.match(motorcycle, [(0, 1)])
    pipeline.match_threshold = 0.5
    (strict,) = pipeline.match(motorcycle, [(0, 1)])
    pipeline.match_threshold = 0.1
    np.testing.assert_array_equal(strict.scores, all_matches.scores[all_matches.scores > 0.5])
    pipeline.max_keypoints = 100
    (few,) = pipeline.match(motorcycle, [(0, 1)])
    pipeline.max_keypoints = 1024
    assert 0 < len(few) <= 100
    assert max(few.indices0.max(), few.indices1.max()) < 100


def test_the_canvas_size_changes_between_frames(pipeline, motorcycle):
    pipeline.set_image_size((330, 250))
    assert pipeline.image_size == (352, 256)
    (small,) = pipeline.match(motorcycle, [(0, 1)])
    pipeline.set_image_size((640, 480))
    assert same_row_share(small.keypoints0, small.keypoints1, 3.0) > 0.9
    assert small.keypoints0[:, 0].max() > 400


def test_results_can_be_compared_and_kept_in_sets():
    results = {PairMatches.empty(), PairMatches.empty()}
    assert len(results) == 2


def test_times_of_all_stages_are_kept(pipeline, motorcycle):
    before = pipeline.times
    pipeline.match(motorcycle, [(0, 1)])
    times = pipeline.times - before
    assert min(times.canvas, times.extract, times.match, times.unpad) > 0.0
    assert times.inference == times.extract + times.match


def test_times_are_those_of_the_calling_thread(pipeline, motorcycle):
    before = pipeline.times
    other = threading.Thread(target=pipeline.match, args=(motorcycle, [(0, 1)]))
    other.start()
    other.join()
    assert pipeline.times == before


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda p, images: p.match(images, [(0, 2)]), ConfigError, "both from 0 to 1"),
        (lambda p, images: p.match(images, [(-1, 0)]), ConfigError, "both from 0 to 1"),
        (lambda p, images: p.match(images, [(0, 1), (0,)]), ConfigError, "a list of (first, second)"),
        (lambda p, images: p.match([images[0].astype(float), None], [(0, 1)]), ImageError, "float64"),
        (lambda p, images: setattr(p, "max_keypoints", 0), ConfigError, "1 to 1024"),
        (lambda p, images: setattr(p, "max_keypoints", 1025), ConfigError, "--max-keypoints 1025"),
        (lambda p, images: setattr(p, "match_threshold", 1.1), ConfigError, "0 to 1"),
        (lambda p, images: setattr(p, "match_threshold", float("nan")), ConfigError, "0 to 1"),
        (lambda p, images: p.set_image_size((0, 480)), ConfigError, "0x480"),
    ],
)
def test_bad_values_are_refused_and_change_nothing(pipeline, motorcycle, call, error, says):
    with pytest.raises(error) as caught:
        call(pipeline, motorcycle)
    assert says in str(caught.value)
    assert (pipeline.max_keypoints, pipeline.match_threshold) == (1024, pytest.approx(0.1))


def test_a_pipeline_of_one_graph_does_its_half_and_refuses_the_other(pipeline, model_folder, motorcycle):
    extractor, matcher = (
        MatchPipeline(model_folder, "cpu", image_size=(640, 480), graphs=(graph,))
        for graph in ("extractor", "matcher")
    )
    features = extractor.extract(motorcycle)
    (found,) = matcher.match_features(features, [(0, 1)])
    (expected,) = pipeline.match(motorcycle, [(0, 1)])
    assert_same(found, expected)
    with pytest.raises(ModelError, match="the matcher of model xfeat is not loaded, only extractor"):
        extractor.match_features(features, [(0, 1)])
    with pytest.raises(ModelError, match="the extractor of model xfeat is not loaded, only matcher"):
        matcher.extract(motorcycle)
    assert len(matcher.extract([]).keypoints) == 0


@pytest.mark.parametrize(
    ("asked", "version", "allows", "microseconds"),
    [
        ({}, "1.32.0", "1", "5"),
        # It does not know how long, and would spin for milliseconds.
        ({}, "1.25.0", "0", None),
        ({"spin_threads": True}, "1.32.0", "1", None),
        ({"spin_threads": True}, "1.25.0", "1", None),
    ],
)
def test_threads_spin_shortly_unless_more_is_asked_for_and_never_between_runs(
    model_folder, monkeypatch, asked, version, allows, microseconds
):
    monkeypatch.setattr("onnxruntime.__version__", version)
    path = find_model(model_folder).matcher
    session = GraphSession(path, "matcher", provider="cpu", num_threads=4, **asked)
    options = session._session.get_session_options()
    assert options.intra_op_num_threads == 4
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == allows
    try:
        found = options.get_session_config_entry("session.intra_op.spin_duration_us")
    except RuntimeError:  # it is not set
        found = None
    assert found == microseconds


@pytest.mark.parametrize(
    ("graph", "entry", "value", "says"),
    [
        ("matcher", "weights_sha256", "0" * 64, "do not belong together: weights_sha256"),
        ("matcher", "pairs", "4", "do not belong together: pairs is None in one and 4 in the other"),
        ("extractor", "contract_version", "0", "contract version 0, this runtime follows"),
        ("extractor", "min_onnxruntime", "99.0", r"Runtime 99\.0 or later, and .* is installed; fix: pip"),
    ],
)
def test_files_of_another_model_or_runtime_are_refused(model_folder, tmp_path, graph, entry, value, says):
    import onnx

    shutil.copytree(model_folder, tmp_path, dirs_exist_ok=True)
    model = onnx.load(tmp_path / f"{graph}.onnx")
    (changed,) = (it for it in model.metadata_props if it.key == f"lightglue_ros.{entry}")
    changed.value = value
    onnx.save(model, tmp_path / f"{graph}.onnx")
    with pytest.raises(ModelError, match=says):
        MatchPipeline(tmp_path)


def test_a_broken_file_and_a_file_in_the_place_of_another_are_refused(model_folder, tmp_path):
    for name, graph in (("swapped", "matcher"), ("disk-k512", "extractor")):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(model_folder / f"{graph}.onnx", folder / "extractor.onnx")
        shutil.copy(model_folder / "matcher.onnx", folder / "matcher.onnx")
    with pytest.raises(ModelError, match=r"extractor\.onnx holds graph matcher"):
        MatchPipeline(tmp_path / "swapped")
    broken = tmp_path / "disk-k512" / "extractor.onnx"
    broken.write_bytes(broken.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"cannot load .*export disk --split --max-keypoints 512"):
        MatchPipeline(broken.parent)


@pytest.mark.parametrize("graph", ["extractor", "matcher"])
def test_a_git_lfs_pointer_in_the_place_of_a_model_is_called_that(model_folder, tmp_path, graph):
    shutil.copytree(model_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / f"{graph}.onnx").write_bytes(LFS_POINTER)
    with pytest.raises(ModelError, match=rf"{graph}.onnx is a Git LFS pointer.*fix: git lfs pull"):
        MatchPipeline(tmp_path, "cpu")


def test_fixes_name_the_model_of_the_file_and_not_of_its_folder(model_folder, tmp_path):
    folder = tmp_path / "disk"
    shutil.copytree(model_folder, folder)
    shutil.copy(folder / "matcher.onnx", folder / "extractor.onnx")
    with pytest.raises(ModelError, match=f"export it again: lightglue_ros export xfeat --split -o {folder}"):
        MatchPipeline(folder, "cpu")


def test_features_with_holes_in_their_mask_or_of_another_model_are_refused(pipeline, motorcycle):
    features = pipeline.extract(motorcycle)
    holes = features.copy()
    holes.mask[1, 5] = False
    with pytest.raises(ConfigError, match="empty slot before a keypoint; allowed: keypoints in the"):
        pipeline.match_features(holes, [(0, 1)])
    fewer = features.copy()
    fewer.mask[1, 5:] = False
    assert len(pipeline.match_features(fewer, [(0, 1)])[0]) <= 5
    half = Features(*(array[:, :512] for array in features.by_name().values()))
    with pytest.raises(
        ConfigError, match=r"512 slots per image .*allowed: 1024 and 64, those of model xfeat"
    ):
        pipeline.match_features(half, [(0, 1)])


@pytest.mark.skipif(has_gpu(), reason="there is an NVIDIA GPU here")
def test_without_a_gpu_auto_is_the_cpu(model_folder):
    assert MatchPipeline(model_folder, "auto").provider == "cpu"


@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_a_provider_by_name_that_is_not_there_says_why_unless_the_cpu_will_do(model_folder, name):
    if is_in_build(name):
        pytest.skip(f"this ONNX Runtime has {name}")
    says = rf"'{name}' does not work here: (this build .* has only .*CPU|there is no NVIDIA driver).*fix: "
    with pytest.raises(ProviderError, match=says):
        MatchPipeline(model_folder, name)
    assert MatchPipeline(model_folder, name, allow_fallback=True).provider == "cpu"
    with pytest.raises(ConfigError, match="'gpu' is unknown; allowed: auto, cpu, cuda, tensorrt"):
        MatchPipeline(model_folder, "gpu")


@pytest.mark.skipif(not has_gpu(), reason="no NVIDIA GPU here")
def test_on_a_gpu_the_matches_are_those_of_the_cpu(model_folder, motorcycle):
    gpu = MatchPipeline(model_folder, "cuda")
    assert gpu.provider == "cuda"
    (found,) = gpu.match(motorcycle, [(0, 1)])
    (expected,) = MatchPipeline(model_folder, "cpu").match(motorcycle, [(0, 1)])
    of_gpu, of_cpu = (set(map(tuple, matches.keypoints0.round(2))) for matches in (found, expected))
    assert len(of_gpu & of_cpu) >= 0.95 * len(expected)


def test_a_cancelled_pipeline_ends_the_run_in_work_and_begins_no_other(model_folder, motorcycle):
    pipeline = MatchPipeline(model_folder, "cpu", image_size=(1600, 1216))
    begun, ended = threading.Event(), threading.Event()

    def match_on():
        try:
            for _ in range(1000):
                pipeline.match(motorcycle, [(0, 1)])
                begun.set()
        except Exception:  # ONNX Runtime's has no base of its own
            ended.set()

    thread = threading.Thread(target=match_on, daemon=True)
    thread.start()
    assert begun.wait(30.0)
    pipeline.cancel()
    assert ended.wait(30.0)
    with pytest.raises(Exception, match="terminate"):
        pipeline.match(motorcycle, [(0, 1)])
