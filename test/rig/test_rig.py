import pytest

from lightglue_ros.core import ConfigError
from lightglue_ros.rig.rig import Rig, View


def test_pairs_become_views_of_cameras_some_of_them_frames_back():
    rig = Rig.parse(["left", "right"], ["right:left", "left@-1:left", "left:left@-5", "right@-2:left"])
    assert rig.pairs[:2] == ((View(1), View(0)), (View(0, back=1), View(0)))
    assert rig.pairs[2] == (View(0), View(0, back=5))
    assert [rig.frames_back(camera) for camera in (0, 1)] == [5, 2]
    assert rig.most_frames_back == 5


def test_a_frame_is_of_use_if_it_holds_the_present_images_of_a_pair():
    rig = Rig.parse(["left", "right", "rear"], ["left:right", "rear@-1:rear", "rear@-1:left"])
    assert [rig.is_served_by(present) for present in ({0, 1}, {2}, {0}, {1})] == [True, True, True, False]
    assert Rig.parse(["left", "right"], []).is_served_by({1})


@pytest.mark.parametrize(
    ("cameras", "pairs", "says"),
    [
        (["left", "left"], ["left:left"], "'left' more than once"),
        ([], [], "cameras is empty"),
        (list("abcdefghi"), ["a:i"], "cameras has 9 names; allowed: 1 to 8"),
        (["left", ""], ["left:right"], "the name ''"),
        (["left", "a:b"], ["left:a:b"], "the name 'a:b'"),
        (["left", "right"], ["left:rihgt"], "'left:rihgt'"),
        (["left", "right"], ["left"], "'left'"),
        (["left", "right"], ["left:left"], "'left:left'"),
        (["left", "right"], ["left:right:left"], "'left:right:left'"),
        (["left"], ["left@1:left"], "'left@1:left'"),
        (["left"], ["left@-:left"], "'left@-:left'"),
        (["left"], ["left@-0:left"], "'left@-0:left'"),
        (["left"], ["left@-1:left@-2"], "'left@-1:left@-2'"),
        (["left"], ["left@-101:left"], "at most 100 frames before"),
        (["left"], ["left:right"], 'pairs: ["left@-1:left"]'),
    ],
)
def test_errors_say_what_was_found_and_what_is_allowed(cameras, pairs, says):
    with pytest.raises(ConfigError) as caught:
        Rig.parse(cameras, pairs)
    assert says in str(caught.value)
    assert "allowed:" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_images_of_a_run_are_the_cameras_or_the_different_views():
    assert Rig.parse(["left", "right"], ["left:right"]).most_images == 2
    assert Rig.parse(["left", "right"], ["left:right", "left@-1:left", "right@-1:right"]).most_images == 4
    assert Rig.parse(["front", "left", "rear"], ["front:left"]).most_images == 3
    assert Rig.parse("abcdefgh", []).most_images == 8
