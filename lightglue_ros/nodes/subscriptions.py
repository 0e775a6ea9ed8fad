"""Subscriptions to the cameras: images or features, and CameraInfo. Their QoS follows their publishers'.

All functions belong to the executor's thread. The node calls `look` once per second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from lightglue_ros.errors import ConfigError
from lightglue_ros.msg import Features
from lightglue_ros.nodes import qos
from lightglue_ros.nodes.fastdds import fix_of_lost_messages
from lightglue_ros.nodes.watch import Throttle
from lightglue_ros.rosdata.camera_info import RigCalibration
from lightglue_ros.rosdata.camera_parameters import AUTO_QOS, CameraParameters
from lightglue_ros.rosdata.decoding import COMPRESSED_SUFFIX

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # its name in Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

# Seconds after which all publishers know a new subscription.
OVERLAP_SECONDS = 1.0
# Seconds over which lost messages are counted, and the number and the share from which a topic is named.
LOSS_SECONDS = 5.0
LEAST_LOST = 3
LEAST_LOST_SHARE = 0.05
# Fast DDS was seen to report 2^31 lost messages at once after it had lost four large images.
IMPOSSIBLE_LOSS = 1_000_000


class FollowingSubscription:
    """Subscription whose QoS and type follow those of the topic's publishers.

    If the publishers change, a new subscription is made. The old one is destroyed when the new one gets its
    first message, or when all publishers know the new one, so that no message is lost between the two.

    Args:
        kinds: types of messages that are taken; the first until there are publishers.
        topic: name before remapping.
        image_qos: ``auto`` follows the publishers; see `qos.requested_qos`.
        takes_latched: take messages that were published before.

    Attributes:
        topic: full name.
        received: number of messages.
        lost: number of messages that were sent and did not arrive.
    """

    def __init__(
        self,
        node: Node,
        kinds: Sequence[type],
        topic: str,
        callback: Callable[[Any], None],
        image_qos: str = AUTO_QOS,
        takes_latched: bool = False,
    ) -> None:
        self.topic = node.resolve_topic_name(topic)
        self.received = self.lost = 0
        self._node = node
        self._kinds = {f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}": kind for kind in kinds}
        self._kind = next(iter(self._kinds))
        self._given_topic = topic
        self._callback = callback
        self._image_qos = image_qos
        self._takes_latched = takes_latched
        self._override = qos.reliability_override(node, self.topic)
        self._incompatible = ""
        self._stamp = None
        self._number = 0
        self._old: Subscription | None = None
        self._kind = self._offered_kind()
        self._subscription = self._create(self._wanted(self.offers))

    @property
    def offers(self) -> list[qos.QoSProfile]:
        """Profiles of the topic's publishers whose messages have the type of the subscription."""
        return [it.qos_profile for it in self._publishers if it.topic_type == self._kind]

    @property
    def _publishers(self) -> list[Any]:
        # rclpy remaps the name that it is given, here as in create_subscription.
        return self._node.get_publishers_info_by_topic(self._given_topic)

    @property
    def differs_from_auto(self) -> bool:
        """True if `image_qos: auto` would request another reliability."""
        followed = qos.requested_qos(AUTO_QOS, self.offers).reliability
        return self._subscription.qos_profile.reliability != followed

    def look(self) -> str:
        """Follow the publishers; log and return in words which of them are incompatible, or nothing."""
        if time.monotonic() - self._changed > OVERLAP_SECONDS:
            self._drop_old()
        before, self._kind = self._kind, self._offered_kind()
        offers = self.offers
        wanted, present = self._wanted(offers), self._subscription.qos_profile
        is_same = (wanted.reliability, wanted.durability) == (present.reliability, present.durability)
        # Without publishers it stays as it is, because the driver that went is likely to come back.
        if offers and not (is_same and self._kind == before):
            self._drop_old()
            self._old = self._subscription
            if self._kind != before:
                # A process has one type on a topic (Fast DDS). No images of the other type come any more.
                self._drop_old()
            self._subscription = self._create(wanted)
            self._node.get_logger().info(
                f"{self.topic}: subscribing to {self._kind} with {wanted.reliability.name}, as its "
                "publishers offer it"
            )
        fix = f"image_qos: {AUTO_QOS}"
        if self._override is not None:
            fix = f"qos_overrides.{self.topic}.subscription.reliability: {AUTO_QOS}"
        text = qos.incompatible_text(self.topic, self._subscription.qos_profile, offers, fix)
        types = ", ".join(sorted({it.topic_type for it in self._publishers}))
        if types and not offers:
            text = f"{self.topic} is published as {types}; allowed: {', '.join(self._kinds)}"
        if text and text != self._incompatible:
            self._node.get_logger().warning(text)
        self._incompatible = text
        return text

    def destroy(self) -> None:
        """Unsubscribe."""
        self._drop_old()
        self._node.destroy_subscription(self._subscription)

    def _offered_kind(self) -> str:
        """Return the type of the publishers' messages; the present one where they have none that is taken."""
        offered = {it.topic_type for it in self._publishers}
        return next((kind for kind in (self._kind, *self._kinds) if kind in offered), self._kind)

    def _wanted(self, offers: Sequence[qos.QoSProfile]) -> qos.QoSProfile:
        profile = qos.requested_qos(self._image_qos, offers, self._takes_latched)
        if self._override is not None:
            profile.reliability = self._override
        return profile

    def _create(self, profile: qos.QoSProfile) -> Subscription:
        kind = self._kinds[self._kind]
        if any(it.topic_name == self.topic and it.msg_type is not kind for it in self._node.subscriptions):
            # A process can have a topic with one type only.
            raise ConfigError(
                f"cannot subscribe to {self.topic} as {self._kind}: the node has it with another type",
                allowed="a topic that the node does not use for anything else",
                fix="ros2 topic list -t shows which topics have images",
            )
        self._number += 1
        self._changed = time.monotonic()
        events = {
            "incompatible_qos": lambda _event: self.look(),
            "message_lost": partial(self._count_lost, self._number),
            "matched": lambda _event: self.look(),
        }
        # Humble has no event "matched", and a middleware may lack others. Then only the node calls `look`. An
        # event takes 3 us whenever the executor waits, and rclpy's own ones only log what `look` logs.
        while True:
            try:
                return self._node.create_subscription(
                    kind,
                    self._given_topic,
                    partial(self._take, self._number),
                    profile,
                    qos_overriding_options=qos.overridable_queue(),
                    event_callbacks=SubscriptionEventCallbacks(**events, use_default_callbacks=False),
                )
            except (TypeError, UnsupportedEventTypeError):
                if not events:
                    raise
                events.popitem()

    def _take(self, number: int, message: Any) -> None:
        is_first = number == self._number and self._old is not None
        if is_first:
            self._drop_old()
        # Old and new may both have received the message.
        if not is_first or message.header.stamp != self._stamp:
            self.received += 1
            self._stamp = message.header.stamp
            self._callback(message)

    def _count_lost(self, number: int, event: Any) -> None:
        # The new subscription may receive what the old one loses.
        if number == self._number and event.total_count_change < IMPOSSIBLE_LOSS:
            self.lost += event.total_count_change

    def _drop_old(self) -> None:
        if self._old is not None:
            self._node.destroy_subscription(self._old)
            self._old = None


class InputSubscriptions:
    """Subscribes to the images, or features, of each camera.

    The callback is called with the index of the camera and the message.

    Attributes:
        topics: full name of each camera's topic.
        incompatible: publishers whose QoS or type the subscriptions cannot take, in words; empty if there
            are none.
        lost: topics whose images do not arrive although they are sent, in words; empty if there are none.
    """

    def __init__(self, node: Node, values: CameraParameters, callback: Callable[[int, Any], None]) -> None:
        self.incompatible = self.lost = ""
        self._node = node
        self._throttle = Throttle()
        self._since = time.monotonic()
        self._subscriptions: list[FollowingSubscription] = []
        try:
            for camera, given in enumerate(values.input_topics):
                topic, kinds = given, (Features,)
                if not values.takes_features:
                    topic, kinds = _images_of(node.resolve_topic_name(given), given, values.image_transport)
                take = partial(callback, camera)
                self._subscriptions.append(FollowingSubscription(node, kinds, topic, take, values.image_qos))
        except Exception:
            self.destroy()
            raise
        self.topics = [subscription.topic for subscription in self._subscriptions]
        self._before = [(0, 0)] * len(self.topics)

    def look(self) -> None:
        """Follow the publishers, and notice images that do not arrive; call it once per second."""
        self.incompatible = "; ".join(filter(None, [it.look() for it in self._subscriptions]))
        if time.monotonic() - self._since >= LOSS_SECONDS:
            self._since = time.monotonic()
            self.lost = self._lost()
            if not self.lost:
                self._throttle.forget("lost")
            elif self._throttle.is_due("lost"):
                self._node.get_logger().warning(self.lost)

    def destroy(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            subscription.destroy()

    def _lost(self) -> str:
        """Describe the topics whose images did not arrive since the last call."""
        counts = [(it.received, it.lost) for it in self._subscriptions]
        changes = np.subtract(counts, self._before)
        self._before = counts
        texts, losing = [], []
        for subscription, (received, lost) in zip(self._subscriptions, changes, strict=True):
            if lost >= max(LEAST_LOST, LEAST_LOST_SHARE * (received + lost)):
                texts.append(f"{lost} of {received + lost} images on {subscription.topic} were lost")
            # The middleware counts lost images when a later one arrives.
            elif changes[:, 0].any() and not subscription.received and subscription.offers:
                texts.append(f"no image arrives on {subscription.topic} although it has a publisher")
            else:
                continue
            losing.append(subscription)
        if not losing:
            return ""
        is_ours = any(it.differs_from_auto for it in losing)
        fix = f"image_qos: {AUTO_QOS}, without qos_overrides" if is_ours else fix_of_lost_messages()
        return f"{'; '.join(texts)}; fix: {fix}"


class CameraInfoSubscriptions:
    """Hands the CameraInfo of each camera to a calibration, while something needs it.

    CameraInfo that was published before is taken, if its publishers keep it (transient local).
    """

    def __init__(self, node: Node, calibration: RigCalibration, is_needed: bool) -> None:
        self._node = node
        self._calibration = calibration
        self._subscriptions: list[FollowingSubscription] = []
        self.follow(is_needed)

    def follow(self, is_needed: bool) -> None:
        """Subscribe if CameraInfo is needed, else unsubscribe."""
        if not is_needed:
            self.destroy()
        elif not self._subscriptions:
            self._subscriptions = [
                FollowingSubscription(
                    self._node,
                    (CameraInfo,),
                    topic,
                    partial(self._calibration.set_info, camera),
                    takes_latched=True,
                )
                for camera, topic in enumerate(self._calibration.topics)
            ]

    def look(self) -> None:
        """Follow the publishers; call it once per second."""
        for subscription in self._subscriptions:
            subscription.look()

    def destroy(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            subscription.destroy()
        self._subscriptions = []


def _images_of(name: str, given: str, transport: str) -> tuple[str, tuple[type, ...]]:
    """Return the topic to subscribe to and the types of its images, the expected one first.

    Args:
        name: full name of the topic.
        given: its name before remapping.
        transport: see the parameter image_transport.
    """
    is_named_compressed = name.endswith(COMPRESSED_SUFFIX)
    if transport == "raw" and not is_named_compressed:
        return given, (Image, CompressedImage)
    # The full name gets the suffix, so that remapping the raw images' topic is enough.
    return given if is_named_compressed else name + COMPRESSED_SUFFIX, (CompressedImage, Image)
