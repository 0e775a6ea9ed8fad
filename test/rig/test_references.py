"""References: stored images in pairs with cameras."""

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import pytest

from lightglue_ros.core import MatchPipeline
from lightglue_ros.core.image_files import list_images, read_image, write_image
from lightglue_ros.core.mono16 import Mono16Range
from lightglue_ros.errors import ConfigError
from lightglue_ros.rig.frame import FrameSettings, RigFrame
from lightglue_ros.rig.processor import FrameProcessor
from lightglue_ros.rig.rig import Rig


@dataclass(frozen=True)
class Image:
    """An image in memory."""

    content: Any
    width, height = 741, 500

    def decode(self, mono16):
        return self.content

    def without_pixels(self):
        return self


@pytest.fixture(scope="module")
def pipeline(model_folder):
    return MatchPipeline(model_folder, "cpu", image_size=(320, 224))


@pytest.fixture
def extracted(pipeline, monkeypatch):
    """Lists the number of images of each call of the pipeline's extraction."""
    counts = []
    extract = pipeline.extract

    def counted(images, *rest):
        counts.append(sum(image is not None for image in images))
        return extract(images, *rest)

    monkeypatch.setattr(pipeline, "extract", counted)
    return counts


@pytest.fixture
def dock(motorcycle, tmp_path):
    """The file of a reference: the motorcycle's left image."""
    path = tmp_path / "dock.png"
    write_image(path, motorcycle[0])
    return path


@pytest.fixture(scope="module")
def places(motorcycle, shared_data, tmp_path_factory):
    """A folder of five places, of which 3.png and 10.png show the motorcycle; 10.png is its right image."""
    folder = tmp_path_factory.mktemp("places")
    drive = list_images(shared_data / "kitti_seq1" / "image_l")
    for name, path in zip(("1.png", "2.png", "20.png"), drive[::20], strict=False):
        write_image(folder / name, read_image(path))
    write_image(folder / "3.png", cv2.GaussianBlur(motorcycle[1], (0, 0), 3))
    write_image(folder / "10.png", motorcycle[1])
    return folder


def settings_of(pipeline, cameras, pairs, references, **settings):
    rig = Rig.parse(cameras, pairs, references)
    return FrameSettings(rig, pipeline.image_size, None, 0.1, Mono16Range(), **settings)


def frame_of(*images):
    wrapped = tuple(None if image is None else Image(image) for image in images)
    absent = frozenset(camera for camera, image in enumerate(wrapped) if image is None)
    return RigFrame(wrapped, (0,) * len(images), absent, (0,) * len(images))


def test_a_reference_is_matched_as_an_image_of_a_camera_and_costs_one_extraction(
    pipeline, motorcycle, dock, extracted
):
    """With refinement, which needs the grey image of the reference."""
    settings = settings_of(pipeline, ["front"], ["front:dock"], [f"dock:{dock}"])
    processor = FrameProcessor(pipeline, settings)
    results = [processor.process(frame_of(motorcycle[1]), settings) for _ in range(3)]
    assert extracted == [1, 1, 1, 1]
    (expected,) = pipeline.match([motorcycle[1], motorcycle[0]], [(0, 1)])
    assert len(expected) > 100
    for result in results:
        (pair,) = result.pairs
        np.testing.assert_allclose(pair.matches.keypoints1, expected.keypoints1, atol=1e-3)
        np.testing.assert_array_equal(pair.matches.checked, expected.checked)
        assert (pair.image1.path, pair.image1.width, pair.image1.height) == (dock, 741, 500)


def test_a_reference_is_extracted_again_only_if_settings_of_the_extraction_change(
    pipeline, motorcycle, dock, extracted
):
    first = settings_of(pipeline, ["front"], ["front:dock"], [f"dock:{dock}"])
    processor = FrameProcessor(pipeline, first)
    changes = {
        "match_threshold": (0.3, 0),
        "geometry": ("homography", 0),
        "max_keypoints": (200, 1),
        "image_size": ((256, 192), 1),
        "refine": ("none", 1),  # its grey image comes or goes
    }
    processor.process(frame_of(motorcycle[1]), first)
    for name, (value, again) in changes.items():
        extracted.clear()
        changed = replace(first, **{name: value})
        processor.apply(changed)
        assert len(extracted) == again, name
        processor.apply(first)
    pipeline.set_image_size((320, 224))


def test_the_matrix_leads_from_the_image_to_the_plane_of_the_reference(pipeline, motorcycle, dock):
    turned = np.array([[0.9, 0.1, 20.0], [-0.1, 0.9, 60.0], [1e-5, 0.0, 1.0]])
    seen = cv2.warpPerspective(motorcycle[0], turned, (741, 500))
    settings = settings_of(pipeline, ["front"], ["front:dock"], [f"dock:{dock}"], geometry="homography")
    (pair,) = FrameProcessor(pipeline, settings).process(frame_of(seen), settings).pairs
    corners = np.array([[[100.0, 100.0], [600.0, 100.0], [600.0, 400.0], [100.0, 400.0]]])
    in_image = cv2.perspectiveTransform(corners, turned)
    back = cv2.perspectiveTransform(in_image, pair.verification.matrix)
    np.testing.assert_allclose(back, corners, atol=2.0)


def test_the_images_of_a_folder_come_best_first(pipeline, motorcycle, places, extracted):
    """The sharp image of the motorcycle, then the blurred one, then any other; in either order of a pair."""
    pairs = ["front:places", "front:places@2", "front:places@5", "places:front"]
    settings = settings_of(pipeline, ["front"], pairs, [f"places:{places}"], geometry="fundamental")
    processor = FrameProcessor(pipeline, settings)
    best, second, worst, turned = processor.process(frame_of(motorcycle[0]), settings).pairs
    assert extracted == [1] * 5 + [1]
    assert [best.image1.path.name, second.image1.path.name] == ["10.png", "3.png"]
    assert turned.image0.path.name == "10.png"
    assert best.agreeing > second.agreeing > worst.agreeing
    (expected,) = pipeline.match([motorcycle[0], read_image(places / "10.png")], [(0, 1)])
    np.testing.assert_array_equal(best.matches.indices1, expected.indices1)


def test_a_static_export_matches_a_folder_in_as_small_runs_as_it_has(
    pipeline, motorcycle, places, monkeypatch
):
    settings = settings_of(pipeline, ["front"], ["front:places"], [f"places:{places}"])
    (expected,) = FrameProcessor(pipeline, settings).process(frame_of(motorcycle[0]), settings).pairs
    monkeypatch.setattr(pipeline, "info", replace(pipeline.info, batch=2, pairs=1))
    (found,) = FrameProcessor(pipeline, settings).process(frame_of(motorcycle[0]), settings).pairs
    assert found.image1.path == expected.image1.path
    np.testing.assert_array_equal(found.matches.indices1, expected.matches.indices1)


def test_a_reference_never_makes_a_camera_missing(pipeline, motorcycle, dock, places):
    """A frame without the front camera still has the other pair; one with it alone is served."""
    settings = settings_of(
        pipeline,
        ["front", "rear"],
        ["front:dock", "front:places@2", "rear:dock"],
        [f"dock:{dock}", f"places:{places}"],
    )
    assert settings.rig.is_served_by({0})
    assert settings.rig.count_served({1}) == 1
    pairs = FrameProcessor(pipeline, settings).process(frame_of(None, motorcycle[1]), settings).pairs
    assert [pair.is_missing for pair in pairs] == [True, True, False]


def test_a_reference_is_named_in_every_error_about_it(pipeline, dock, tmp_path):
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "1.png").write_bytes(dock.read_bytes()[:1000])

    def configure(pairs, references):
        settings = settings_of(pipeline, ["front"], pairs, references)
        FrameProcessor(pipeline, settings).apply(settings)

    def error_of(*references, pairs=("front:dock",)):
        with pytest.raises(ConfigError) as caught:
            configure(pairs, references)
        assert len(str(caught.value).splitlines()) == 1
        return str(caught.value)

    assert "'dock.png'" in error_of("dock.png")
    assert "front is the name of a camera, too" in error_of(f"front:{dock}")
    assert "dock is the name of another reference, too" in error_of(f"dock:{dock}", f"dock:{dock}")
    for path in (tmp_path / "none.png", tmp_path / "empty"):
        found = error_of(f"dock:{path}")
        assert f"'dock:{path}'" in found
        assert "fix: check the path" in found
    found = error_of(f"dock:{broken}")
    assert "'dock', whose image is broken" in found
    assert f"fix: replace {broken / '1.png'}, or remove it from the folder" in found
    for pair in ("dock:dock", "front@-1:dock", "front:dock@-1", "front:dock@2", "front:door"):
        assert f"'{pair}'" in error_of(f"dock:{dock}", pairs=[pair])
