"""What can be chosen at export, and whether it fits together."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lightglue_ros.errors import ConfigError
from lightglue_ros.export.models.lightglue import NEVER, LightGlueConfig
from lightglue_ros.export.registry import ModelSpec
from lightglue_ros.export.tensorrt import LARGEST_TOP_K

DEFAULT_MAX_KEYPOINTS = 1024
PRECISIONS = ("fp32", "fp16", "int8")
OPSETS = range(18, 24)
CONFIDENCES = ("depth_confidence", "width_confidence")
STEREO = {"batch": 2, "pairs": 1}  # of a static export where nothing else is said


@dataclass(frozen=True)
class ExportOptions:
    """How to export a model. With an image size all shapes are fixed, without one all are free.

    Attributes:
        split: extractor.onnx and matcher.onnx instead of pipeline.onnx.
        max_keypoints: K, the number of keypoint slots per image.
        precision: ``fp32``; ``fp16`` for GPUs (coordinates, indices and the assignment stay in fp32);
            ``int8`` for CPUs (the matcher's linear layers and attention, XFeat's convolutions; see
            `int8` and `int8_convolutions`).
        image_size: (width, height) of a static export's canvas, rounded up to the model's divisor.
        batch: N of a static export; 2 where nothing is said.
        pairs: P of a static export; 1 where nothing is said.
        channels: C of a static export, 1 for grey cameras; by default what the extractor looks at.
        opset: of the standard operators; by default the least that will do.
        portable: only operators that other runtimes have, too: none of ONNX Runtime's own, and no DeformConv
            in ALIKED.
        compaction: match with as many slots as the image with the most keypoints needs, not with all K; by
            default in a dynamic export only, for its shapes depend on what is in the images.
        adaptive: pairs stop early and points are pruned as soon as the matcher is sure, as in the original;
            in a dynamic export only, for the same reason.
        depth_confidence: share of points that must be sure before a pair stops, -1 never; by default what the
            model's original has.
        width_confidence: how sure it must be of a point without a partner before that is pruned, -1 never; by
            default what the model's original has.
    """

    split: bool = False
    max_keypoints: int = DEFAULT_MAX_KEYPOINTS
    precision: str = "fp32"
    image_size: tuple[int, int] | None = None
    batch: int | None = None
    pairs: int | None = None
    channels: int | None = None
    opset: int | None = None
    portable: bool = False
    compaction: bool | None = None
    adaptive: bool = False
    depth_confidence: float | None = None
    width_confidence: float | None = None

    @property
    def is_fused(self) -> bool:
        """Whether operators of ONNX Runtime's own are used, which are quick on a CPU."""
        return not (self.portable or self.is_static or self.precision == "fp16")

    @property
    def is_static(self) -> bool:
        """Whether all shapes are fixed."""
        return self.image_size is not None

    def settle(self, spec: ModelSpec) -> ExportOptions:
        """These options for a model: checked, the image size rounded up, the defaults filled in.

        Raises:
            ConfigError: a value is impossible, or does not go with another.
        """
        self._check()
        confidences = {name: self._confidence(name, spec) for name in CONFIDENCES}
        compaction = not self.is_static if self.compaction is None else self.compaction
        if self.image_size is None:
            return replace(self, compaction=compaction, **confidences)
        rounded = tuple(-(-side // spec.divisor) * spec.divisor for side in self.image_size)
        return replace(
            self,
            image_size=rounded,
            batch=self.batch or STEREO["batch"],
            pairs=self.pairs or STEREO["pairs"],
            channels=self.channels or spec.channels,
            compaction=compaction,
            **confidences,
        )

    def matcher_config(self, spec: ModelSpec) -> LightGlueConfig:
        """The shape of the model's matcher, of settled options."""
        return replace(spec.matcher, **{name: getattr(self, name) for name in CONFIDENCES})

    def _confidence(self, name: str, spec: ModelSpec) -> float:
        if not self.adaptive:
            return NEVER
        value = getattr(self, name)
        return getattr(spec.matcher, name) if value is None else value

    def suffixes(self) -> list[str]:
        """What tells this export from the default one, in short, for its name."""
        named = {
            f"k{self.max_keypoints}": self.max_keypoints != DEFAULT_MAX_KEYPOINTS,
            self.precision: self.precision != "fp32",
            f"opset{self.opset}": self.opset is not None,
            "portable": self.portable,
            "all-slots": self.compaction is False and not self.is_static,
            "adaptive": self.adaptive,
            f"depth{self.depth_confidence}": self.depth_confidence is not None,
            f"width{self.width_confidence}": self.width_confidence is not None,
        }
        if self.image_size is not None:
            width, height = self.image_size
            named[f"{width}x{height}"] = True
            named |= {f"n{self.batch}": self.batch is not None, f"p{self.pairs}": self.pairs is not None}
            named[f"c{self.channels}"] = self.channels is not None
        return [suffix for suffix, is_said in named.items() if is_said]

    def _check(self) -> None:
        for name in ("max_keypoints", "batch", "pairs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}", allowed="1 or more")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision is '{self.precision}'", allowed=", ".join(PRECISIONS))
        if self.opset is not None and self.opset not in OPSETS:
            raise ConfigError(f"opset is {self.opset}", allowed=f"{OPSETS[0]} to {OPSETS[-1]}")
        if self.channels not in (None, 1, 3):
            raise ConfigError(f"channels is {self.channels}", allowed="1 (grey) or 3 (RGB)")
        for name in CONFIDENCES:
            self._check_confidence(name)
        if self.adaptive and self.compaction is False:
            raise ConfigError(
                "compaction is off in an adaptive export",
                allowed="on, for points that are pruned leave their slots",
                fix="leave out --no-compaction",
            )
        if not self.is_static:
            for name in ("batch", "pairs", "channels"):
                if getattr(self, name) is not None:
                    raise ConfigError(
                        f"{name} is {getattr(self, name)} while the image size is dynamic",
                        allowed="a static export fixes all shapes, a dynamic one none",
                        fix="add --image-size, for example --image-size 640x480",
                    )
        elif self.compaction or self.adaptive:
            name = "compaction" if self.compaction else "adaptive"
            raise ConfigError(
                f"{name} is asked for in a static export",
                allowed="without it, for its shapes depend on what is in the images",
                fix=f"leave out --image-size or --{name}",
            )
        elif min(self.image_size) < 1:
            raise ConfigError(f"image size is {self.image_size}", allowed="1 pixel or more each")
        elif self.max_keypoints > LARGEST_TOP_K:
            raise ConfigError(
                f"max_keypoints is {self.max_keypoints}",
                allowed=f"up to {LARGEST_TOP_K} in a static export, which is as far as TensorRT's TopK goes",
                fix="leave out --image-size, or ask for fewer keypoints",
            )

    def _check_confidence(self, name: str) -> None:
        value = getattr(self, name)
        if value is None:
            return
        if not self.adaptive:
            raise ConfigError(f"{name} is {value} in an export that is not adaptive", fix="add --adaptive")
        if value != NEVER and not 0 < value <= 1:
            raise ConfigError(f"{name} is {value}", allowed=f"above 0, up to 1; {NEVER:g} is never")
