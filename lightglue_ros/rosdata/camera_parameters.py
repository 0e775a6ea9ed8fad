"""Parameters that matcher and viewer share: the cameras and the pictures."""

from __future__ import annotations

from dataclasses import dataclass

from lightglue_ros.core.draw import AGE, COLOURINGS, MOST_LINES, Style
from lightglue_ros.core.mono16 import MONO16_NORMALISATIONS, Mono16Range
from lightglue_ros.errors import ConfigError
from lightglue_ros.rosdata.decoding import TRANSPORTS
from lightglue_ros.rosdata.parameter_spec import parameter, specs_of

# Quality of service of images that we publish, and of images that we subscribe to.
OFFERED_QOS = ("sensor_data", "reliable")
AUTO_QOS = "auto"


@dataclass(frozen=True, kw_only=True)
class CameraParameters:
    """Parameters that matcher and viewer share; these are all parameters of the viewer.

    Raises:
        ConfigError: a value is not allowed, or the values do not fit each other.
    """

    cameras: list[str] = parameter(
        ["left", "right"], "Names of the cameras, 1 to 8, in the order of image_topics."
    )
    image_topics: list[str] = parameter(
        ["left/image_rect", "right/image_rect"],
        "Topic of each camera's images (Image or CompressedImage), remappable.",
    )
    references: list[str] = parameter(
        [""],
        "Stored images that stand in pairs like a camera: NAME:FILE, or NAME:FOLDER for the image of a "
        "folder that matches best (left:NAME in pairs; left:NAME@2 is the second best). They are extracted "
        "once.",
    )
    image_transport: str = parameter(
        "raw",
        "Transport of the images; compressed is JPEG or PNG on IMAGE_TOPIC/compressed.",
        choices=TRANSPORTS,
    )
    image_qos: str = parameter(
        AUTO_QOS,
        "Quality of service of the subscriptions to images or features: auto requests what the publishers "
        "of each topic offer (reliable if all of them offer it, else best effort) and follows when they "
        "change; sensor_data is best effort; qos_overrides.* change single topics.",
        choices=(AUTO_QOS, *OFFERED_QOS),
    )
    max_image_pixels: int = parameter(
        4096 * 4096,
        "Compressed images with more pixels are rejected before they are decoded.",
        limits=(1, 2**30),
    )
    mono16_normalisation: str = parameter(
        "percentile",
        "Conversion of 16-bit images to 8 bits: percentile stretches the mono16_percentiles of each image, "
        "fixed stretches mono16_range.",
        choices=MONO16_NORMALISATIONS,
    )
    mono16_range: list[int] = parameter(
        [0, 65535], "16-bit values that become black and white with mono16_normalisation: fixed."
    )
    mono16_percentiles: list[float] = parameter(
        [1.0, 99.0],
        "Percentiles of a 16-bit image's values that become black and white with mono16_normalisation: "
        "percentile.",
    )
    drawing_rate: float = parameter(
        5.0,
        "Highest rate of pictures on matches/image (Hz), drawn only while somebody subscribes; 0 draws none.",
        limits=(0.0, 100.0),
        can_change=True,
    )
    drawing_lines: int = parameter(
        MOST_LINES,
        "Highest number of lines per pair in pictures, spread evenly over the image; in proportion fewer in "
        "pictures of less than 480 rows. Every match has dots.",
        limits=(0, 65536),
        can_change=True,
    )
    drawing_colour: str = parameter(
        "score",
        "Colour of matches in pictures: score goes from red (0) to green (1), disparity from blue (small) to "
        "red (large), age from blue (new track) to red (oldest), with trails; age needs publish_tracks.",
        choices=(*COLOURINGS, AGE),
        can_change=True,
    )

    def __post_init__(self) -> None:
        for name, spec in specs_of(type(self)).items():
            spec.check(name, getattr(self, name))
        self._check_together()

    def _check_together(self) -> None:
        _ = self.mono16
        if self.needs_image_topics and len(self.cameras) != len(self.image_topics):
            raise ConfigError(
                f"parameter image_topics has {len(self.image_topics)} topics for {len(self.cameras)} cameras",
                allowed="one topic for each camera, in the same order",
                fix="cameras: [left, right] and image_topics: [left/image_rect, right/image_rect]",
            )

    @property
    def needs_image_topics(self) -> bool:
        """True if image_topics are subscribed to, or name the topics of CameraInfo."""
        return True

    @property
    def takes_features(self) -> bool:
        """True if features come in place of images."""
        return False

    @property
    def input_topics(self) -> list[str]:
        """Topic of each camera's images or features."""
        return self.image_topics

    @property
    def named_topics(self) -> list[tuple[str, str, str]]:
        """Topics that must be valid names: parameter, its value and the topic that comes from the value."""
        return [("image_topics", topic, topic) for topic in self.image_topics if self.needs_image_topics]

    @property
    def style(self) -> Style:
        """Look of the pictures."""
        return Style(self.drawing_colour, self.drawing_lines)

    @property
    def mono16(self) -> Mono16Range:
        """Range of 16-bit values that becomes 8 bits."""
        return Mono16Range(
            self.mono16_normalisation, tuple(self.mono16_range), tuple(self.mono16_percentiles)
        )
