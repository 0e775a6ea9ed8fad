import pytest

from lightglue_ros.core import ConfigError
from lightglue_ros.core.rig import Rig


def test_pairs_become_indices_of_cameras():
    rig = Rig.parse(["left", "right", "rear"], ["left:right", "rear:left"])
    assert rig.pairs == ((0, 1), (2, 0))


@pytest.mark.parametrize(
    ("cameras", "pairs", "says"),
    [
        (["left", "left"], ["left:left"], "'left' more than once"),
        ([], [], "cameras is empty"),
        (["left", ""], ["left:right"], "the name ''"),
        (["left", "a:b"], ["left:a:b"], "the name 'a:b'"),
        (["left", "right"], [], "pairs is empty"),
        (["left", "right"], ["left:rihgt"], "'left:rihgt'"),
        (["left", "right"], ["left"], "'left'"),
        (["left", "right"], ["left:left"], "'left:left'"),
        (["left", "right"], ["left:right:left"], "'left:right:left'"),
    ],
)
def test_errors_say_what_was_found_and_what_is_allowed(cameras, pairs, says):
    with pytest.raises(ConfigError) as caught:
        Rig.parse(cameras, pairs)
    assert says in str(caught.value)
    assert "allowed:" in str(caught.value)
    assert "\n" not in str(caught.value)
