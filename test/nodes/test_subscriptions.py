"""Subscriptions that follow their publishers, in the process of the test."""

from types import SimpleNamespace

import pytest
from sensor_msgs.msg import Image

from lightglue_ros.nodes import qos, subscriptions
from lightglue_ros.nodes.listener import Listener


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


def test_losses_that_the_middleware_miscounts_and_those_of_a_replaced_subscription_are_not_told(node):
    following = subscriptions.FollowingSubscription(node, (Image,), "image", print)
    for change in (3, 2**31):
        following._count_lost(following._number, SimpleNamespace(total_count_change=change))
    following._count_lost(following._number - 1, SimpleNamespace(total_count_change=1))
    assert following.lost == 3
