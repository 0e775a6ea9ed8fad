"""Subscriptions that follow their publishers, in the process of the test."""

import gc
from array import array
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from lightglue_ros.nodes import qos, subscriptions
from lightglue_ros.nodes.listener import Listener
from lightglue_ros.nodes.uncopied_images import uncopied


class EventsOfHumble:
    """Takes the events of a subscription that rclpy has in Humble, and none of them ever comes."""

    def __init__(self, *, incompatible_qos=None, message_lost=None, use_default_callbacks=True):
        pass

    def create_event_handlers(self, *_):
        return []


@pytest.fixture
def node(ros):
    made = Listener()
    yield made
    made.destroy_node()


def test_without_events_a_subscription_follows_at_the_next_look(node, monkeypatch):
    monkeypatch.setattr(subscriptions, "SubscriptionEventCallbacks", EventsOfHumble)
    heard = []
    following = subscriptions.FollowingSubscription(node, (Image,), "image", heard.append)
    publisher = node.create_publisher(Image, "image", qos.image_qos("sensor_data"))

    def requested():
        infos = node.get_subscriptions_info_by_topic("image")
        return sorted(info.qos_profile.reliability.name for info in infos)

    def publish():
        publisher.publish(Image())
        return heard

    node.wait_until(lambda: following.offers, "the publisher")
    node.wait_until(lambda: requested() == ["RELIABLE"], "the first subscription")
    following.look()
    node.wait_until(lambda: requested() == ["BEST_EFFORT", "RELIABLE"], "the second subscription")
    node.wait_until(publish, "an image")
    node.wait_until(lambda: publish() and requested() == ["BEST_EFFORT"], "the end of the first subscription")


def test_images_arrive_as_they_were_sent_and_their_pixels_outlive_their_messages(node):
    sent = []
    for count in (0, 1, 30_000, 30_000):
        header = Header(stamp=Time(sec=count, nanosec=4), frame_id="left_camera")
        image = Image(header=header, height=2, width=count // 2, encoding="rgb8", is_bigendian=1, step=count)
        image.data = array("B", np.random.default_rng(len(sent)).bytes(count))
        sent.append(image)
    heard = []
    following = subscriptions.FollowingSubscription(node, (Image,), "image", heard.append, "reliable")
    publisher = node.create_publisher(Image, "image", qos.image_qos("reliable"))
    node.wait_until(lambda: publisher.get_subscription_count() and following.offers, "the subscription")
    for image in sent:
        publisher.publish(image)
    node.wait_until(lambda: len(heard) == len(sent), "the images")
    pixels = [message.data for message in heard]
    assert [len(message.data) for message in heard] == [len(image.data) for image in sent]
    for name in set(Image.get_fields_and_field_types()) - {"data"}:
        assert [getattr(message, name) for message in heard] == [getattr(image, name) for image in sent]
    heard.clear()
    gc.collect()
    assert [bytes(array) for array in pixels] == [bytes(image.data) for image in sent]


def test_the_memory_of_images_is_freed(node):
    heard = deque(maxlen=5)
    following = subscriptions.FollowingSubscription(node, (Image,), "image", heard.append, "reliable")
    publisher = node.create_publisher(Image, "image", qos.image_qos("reliable"))
    image = Image(height=1000, width=1000, encoding="mono8", step=1000, data=array("B", bytes(1_000_000)))

    def memory():
        text = Path("/proc/self/status").read_text()
        return int(text.split("RssAnon:")[1].split()[0]) / 1000

    node.wait_until(lambda: publisher.get_subscription_count() and following.offers, "the subscription")
    before = memory()
    for number in range(1, 151):
        publisher.publish(image)
        node.wait_until(lambda number=number: following.received >= number, "an image")
    assert memory() - before < 75  # MB, of 150


def test_images_are_copied_where_the_c_message_is_not_known(monkeypatch):
    monkeypatch.setenv("ROS_DISTRO", "next")
    assert uncopied.__wrapped__(Image) is Image


def test_losses_that_the_middleware_miscounts_and_those_of_a_replaced_subscription_are_not_told(node):
    following = subscriptions.FollowingSubscription(node, (Image,), "image", print)
    for change in (3, 2**31):
        following._count_lost(following._number, SimpleNamespace(total_count_change=change))
    following._count_lost(following._number - 1, SimpleNamespace(total_count_change=1))
    assert following.lost == 3
