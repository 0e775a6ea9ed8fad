"""Publishers of the matcher, from configure to cleanup."""

from __future__ import annotations

from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from sensor_msgs.msg import Image, PointCloud2

from lightglue_ros.msg import Features, Matches, Tracks
from lightglue_ros.nodes import annotations, drawing, qos
from lightglue_ros.rosdata.parameters import MatcherParameters


class MatcherPublishers:
    """Publishers of what the parameters ask for.

    Attributes:
        matches: None if only features are published.
        tracks: None if they are not published.
        pictures: None without matches, and if features come in place of images.
        points: None if they are not published.
        annotations: by camera; empty if they are not published.
        features: of each camera; empty if they are not published.
    """

    def __init__(self, node: LifecycleNode, values: MatcherParameters) -> None:
        self._node = node
        self._created: list[LifecyclePublisher] = []
        self.matches = self.tracks = self.points = self.pictures = None
        self.annotations: dict[str, LifecyclePublisher] = {}
        self.features: list[LifecyclePublisher] = []
        # First, because without foxglove_msgs this raises an error, which must leave no publisher behind.
        if values.publish_matches and values.publish_annotations:
            self.annotations = {
                camera: self._create(annotations.message_type(), topic, qos.picture_qos())
                for camera, topic in zip(values.cameras, values.annotation_topics, strict=True)
            }
        if values.publish_matches:
            self.matches = self._create(Matches, "matches", qos.result_qos())
        if values.publish_tracks:
            self.tracks = self._create(Tracks, "tracks", qos.result_qos())
        if values.publish_matches and not values.takes_features:
            self.pictures = self._create(Image, drawing.TOPIC, qos.picture_qos())
        if values.publish_points:
            self.points = self._create(PointCloud2, "points", qos.result_qos())
        if values.publish_features:
            topics = values.features_topics
            self.features = [self._create(Features, topic, qos.result_qos()) for topic in topics]

    @property
    def unheard(self) -> str:
        """Topics of all results if nobody subscribes to any of them; else empty."""
        if any(publisher.get_subscription_count() > 0 for publisher in self._created):
            return ""
        return ", ".join(publisher.topic_name for publisher in self._created)

    def destroy(self) -> None:
        """Take the topics away."""
        for publisher in self._created:
            self._node.destroy_lifecycle_publisher(publisher)

    def _create(self, kind: type, topic: str, profile: qos.QoSProfile) -> LifecyclePublisher:
        create, overridable = self._node.create_lifecycle_publisher, qos.overridable()
        self._created.append(create(kind, topic, profile, qos_overriding_options=overridable))
        return self._created[-1]
