"""Images or pairs of one run, each in a thread of its own."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from rounding import assert_same

from lightglue_ros.core import MatchPipeline
from lightglue_ros.core.row_threads import RowThreads, usable_cores

DEADLINE = 30.0


def test_as_many_images_as_threads_are_extracted_at_once_and_the_rest_shares_the_threads():
    both_run = threading.Barrier(2, timeout=30.0)

    def alone(tensors):
        both_run.wait()
        return {"found": tensors["images"] + tensors["masks"] + tensors["max_keypoints"]}

    def together(tensors):
        return {"found": -tensors["images"]}

    images, masks = np.array([10, 20, 30, 40, 50]), np.array([1])
    tensors = {"images": images, "masks": masks, "max_keypoints": np.array([4])}
    outputs = RowThreads(2, ["images", "masks"], alone, together).run(tensors)
    assert outputs["found"].tolist() == [15, 25, 35, 45, -50]


def test_the_cores_are_those_that_this_process_may_use_and_all_where_the_system_cannot_tell(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 2, 5}, raising=False)
    assert usable_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")  # macOS and Windows have no such function
    assert usable_cores() == 64


def test_an_image_that_fails_is_an_error_of_the_run():
    def alone(tensors):
        raise ValueError(f"image {tensors['images'][0]}")

    with pytest.raises(ValueError, match="image 7"):
        RowThreads(2, ["images"], alone, alone).run({"images": np.array([7, 8])})


@pytest.mark.parametrize("count", [2, 3])
def test_features_are_the_same_whichever_threads_extract_them(model_folder, motorcycle, count):
    images = [motorcycle[0], motorcycle[1], motorcycle[0][:300]][:count]
    one, two = (
        MatchPipeline(model_folder, "cpu", image_size=(320, 224), graphs=("extractor",), num_threads=threads)
        for threads in (1, 2)
    )
    for found, expected in zip(
        vars(two.extract(images)).values(), vars(one.extract(images)).values(), strict=True
    ):
        assert_same(found, expected)


def test_a_closed_pipeline_has_no_threads(model_folder, motorcycle):
    def threads():
        return {path.name for path in Path("/proc/self/task").iterdir()}

    def run_and_close():
        pipeline = MatchPipeline(model_folder, "cpu", image_size=(320, 224), num_threads=2)
        pipeline.match(motorcycle, [(0, 1), (1, 0)])
        of_pipeline = threads() - before
        pipeline.close()
        closed.append(pipeline)  # somebody still holds it
        return of_pipeline

    closed, before = [], threads()
    run_and_close()  # after it OpenCV's threads stay
    before = threads()
    of_pipeline = run_and_close()
    assert of_pipeline
    # Linux lists a thread for a moment after it has ended.
    end = time.monotonic() + DEADLINE
    while of_pipeline & threads() and time.monotonic() < end:
        time.sleep(0.01)
    assert not of_pipeline & threads()


@pytest.mark.parametrize("count", [2, 3, 4])
def test_matches_are_the_same_whichever_threads_match_them(model_folder, motorcycle, count):
    one, two = (
        MatchPipeline(model_folder, "cpu", image_size=(320, 224), num_threads=threads) for threads in (1, 2)
    )
    features = one.extract([motorcycle[0], motorcycle[1], motorcycle[0][:300]])
    pairs = [(0, 1), (1, 2), (2, 0), (1, 0)][:count]
    for found, expected in zip(
        two.match_features(features, pairs), one.match_features(features, pairs), strict=True
    ):
        assert len(expected) > 20
        assert_same(found.keypoints1, expected.keypoints1)
        assert_same(found.scores, expected.scores)
