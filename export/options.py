"""Options of an export, and their checks."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lightglue_ros.core.refinement import WHOLE_PIXELS
from lightglue_ros.errors import ConfigError
from lightglue_ros.export.models.lightglue import NEVER
from lightglue_ros.export.models.transformer import LightGlueConfig
from lightglue_ros.export.registry import ModelSpec
from lightglue_ros.export.tensorrt import LARGEST_TOP_K

DEFAULT_MAX_KEYPOINTS = 1024
PRECISIONS = ("fp32", "fp16", "int8")
TARGETS = ("cpu", "gpu", "portable")
OPSETS = range(18, 24)
CONFIDENCES = ("depth_confidence", "width_confidence")
STEREO = {"batch": 2, "pairs": 1}  # defaults of a static export


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export. With an image size all shapes are fixed (static), without it all are free.

    Attributes:
        split: extractor.onnx and matcher.onnx instead of pipeline.onnx.
        max_keypoints: K, the number of keypoint slots per image.
        precision: ``fp32``; ``fp16`` for GPUs (coordinates, indices and the assignment stay in fp32);
            ``int8`` for CPUs (the matcher's linear layers and attention, XFeat's convolutions).
        image_size: (width, height) of a static export's canvas, rounded up to the model's divisor.
        batch: N of a static export; default 2.
        pairs: P of a static export; default 1.
        channels: C of a static export, 1 for grey cameras; default: the channels that the extractor uses.
        opset: version of the standard operators; default: the lowest possible. Below 19 ALIKED has no
            DeformConv.
        target: what the file runs on: ``cpu`` and ``gpu`` in ONNX Runtime, each with the operators that are
            fast there; ``portable`` in other runtimes and in TensorRT, with standard operators only and no
            DeformConv in ALIKED. Default: cpu, with fp16 gpu.
        subpixel: move keypoints from whole pixels to the peaks of the detector's heatmap between the pixels.
        adaptive: stop pairs early and prune points as the original does. Only in a dynamic export, and not
            for GPUs.
        depth_confidence: share of confident points at which a pair stops, -1 is never; default: the
            original's.
        width_confidence: confidence of having no partner at which a point is pruned, -1 is never; default:
            the original's.
    """

    split: bool = False
    max_keypoints: int = DEFAULT_MAX_KEYPOINTS
    precision: str = "fp32"
    image_size: tuple[int, int] | None = None
    batch: int | None = None
    pairs: int | None = None
    channels: int | None = None
    opset: int | None = None
    target: str | None = None
    subpixel: bool = False
    adaptive: bool = False
    depth_confidence: float | None = None
    width_confidence: float | None = None

    @property
    def default_target(self) -> str:
        """The target if none is given."""
        return "gpu" if self.precision == "fp16" else "cpu"

    @property
    def has_compaction(self) -> bool:
        """True if the matcher has as many slots as the image with the most keypoints needs instead of all K.

        Only for CPUs: a GPU waits for the host to learn the shapes, and prepares its convolutions and
        products for each new shape.
        """
        return self.target == "cpu" and not self.is_static

    @property
    def is_static(self) -> bool:
        """True if all shapes are fixed."""
        return self.image_size is not None

    def settle(self, spec: ModelSpec) -> ExportOptions:
        """Check the options for a model, round up the image size and fill in the defaults.

        Raises:
            ConfigError: a value is invalid, or in conflict with another value.
        """
        self._check()
        if self.subpixel and spec.extractor not in WHOLE_PIXELS:
            raise ConfigError(
                f"subpixel is on for {spec.name}, whose keypoints lie between the pixels by themselves",
                allowed=f"subpixel with {', '.join(WHOLE_PIXELS)}",
                fix="leave out --subpixel",
            )
        defaults = {name: getattr(spec.matcher, name) if self.adaptive else NEVER for name in CONFIDENCES}
        defaults["target"] = self.default_target
        if self.is_static:
            defaults |= STEREO | {"channels": spec.channels}
        given = {name: getattr(self, name) for name in defaults if getattr(self, name) is not None}
        settled = replace(self, **defaults | given)
        if self.image_size is None:
            return settled
        rounded = tuple(-(-side // spec.divisor) * spec.divisor for side in self.image_size)
        return replace(settled, image_size=rounded)

    def matcher_config(self, spec: ModelSpec) -> LightGlueConfig:
        """Return the shape of the model's matcher; the options must be settled."""
        return replace(spec.matcher, **{name: getattr(self, name) for name in (*CONFIDENCES, "target")})

    def stored_name(self, model: str) -> str:
        """Return an export's name in the model store: the model, and all options that are not defaults."""
        named = {
            f"k{self.max_keypoints}": self.max_keypoints != DEFAULT_MAX_KEYPOINTS,
            self.precision: self.precision != "fp32",
            f"opset{self.opset}": self.opset is not None,
            f"{self.target}": self.target not in (None, self.default_target),
            "subpixel": self.subpixel,
            "adaptive": self.adaptive,
            f"depth{self.depth_confidence}": self.depth_confidence is not None,
            f"width{self.width_confidence}": self.width_confidence is not None,
        }
        if self.image_size is not None:
            named["x".join(map(str, self.image_size))] = True
            lengths = {"n": self.batch, "p": self.pairs, "c": self.channels}
            named |= {f"{letter}{length}": length is not None for letter, length in lengths.items()}
        return "-".join([model, *(suffix for suffix, is_said in named.items() if is_said)])

    def _check(self) -> None:
        for name in ("max_keypoints", "batch", "pairs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}", allowed="1 or more")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision is '{self.precision}'", allowed=", ".join(PRECISIONS))
        self._check_target()
        if self.opset is not None and self.opset not in OPSETS:
            raise ConfigError(f"opset is {self.opset}", allowed=f"{OPSETS[0]} to {OPSETS[-1]}")
        if self.channels not in (None, 1, 3):
            raise ConfigError(f"channels is {self.channels}", allowed="1 (grey) or 3 (RGB)")
        for name in CONFIDENCES:
            value = getattr(self, name)
            if value is not None and not self.adaptive:
                raise ConfigError(
                    f"{name} is {value} in an export that is not adaptive", fix="add --adaptive"
                )
            if value not in (None, NEVER) and not 0 < value <= 1:
                raise ConfigError(f"{name} is {value}", allowed=f"above 0, up to 1; {NEVER:g} is never")
        if not self.is_static:
            for name in ("batch", "pairs", "channels"):
                if getattr(self, name) is not None:
                    raise ConfigError(
                        f"{name} is {getattr(self, name)} while the image size is dynamic",
                        allowed="a static export fixes all shapes, a dynamic one none",
                        fix="add --image-size, for example --image-size 640x480",
                    )
        elif self.adaptive:
            raise ConfigError(
                "adaptive is on in a static export",
                allowed="off, because its shapes depend on the images",
                fix="leave out --image-size or --adaptive",
            )
        elif min(self.image_size) < 1:
            raise ConfigError(f"image size is {self.image_size}", allowed="1 pixel or more each")
        elif self.max_keypoints > LARGEST_TOP_K:
            raise ConfigError(
                f"max_keypoints is {self.max_keypoints}",
                allowed=f"up to {LARGEST_TOP_K} in a static export, which is the limit of TensorRT's TopK",
                fix="leave out --image-size, or choose fewer keypoints",
            )

    def _check_target(self) -> None:
        target = self.target or self.default_target
        if target not in TARGETS:
            raise ConfigError(f"target is '{target}'", allowed=", ".join(TARGETS))
        if self.precision == "fp16" and target == "cpu":
            raise ConfigError(
                "precision is 'fp16' with target 'cpu'",
                allowed="gpu or portable, because ONNX Runtime has no fast float16 for CPUs",
                fix="leave out --target, or choose --precision int8",
            )
        if self.precision == "int8" and target == "gpu":
            raise ConfigError(
                "precision is 'int8' with target 'gpu'",
                allowed="cpu or portable, because ONNX Runtime computes these operators on CPUs only",
                fix="choose --precision fp16",
            )
        if self.adaptive and (target == "gpu" or self.precision == "fp16"):
            raise ConfigError(
                "adaptive is on in an export for GPUs",
                allowed="off, because an adaptive export runs on CPUs only: it waits for the host after each "
                "layer, and ONNX Runtime's Compress fails on a GPU once all pairs have stopped",
                fix="leave out --adaptive, or export it for CPUs (without --target gpu and --precision fp16)",
            )
