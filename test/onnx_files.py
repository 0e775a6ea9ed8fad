"""Files with the metadata of an export of ours, written without onnx; their graph is garbage."""

from dataclasses import replace

from lightglue_ros.core.contract import GraphInfo

# fmt: off
INFO = GraphInfo(
    graph="extractor", model="xfeat", extractor="xfeat", max_keypoints=512, channels=None, image_size=None,
    batch=None, pairs=None, divisor=32, precision="fp32", target="cpu", adaptive=False,
    depth_confidence=-1.0, width_confidence=-1.0, descriptor_dim=64, keypoint_reach=0,
    weights_sha256=("a" * 64, "b" * 64),
    licence="Apache-2.0", tensorrt=False, min_onnxruntime="1.20",
)
# fmt: on


def varint(value):
    """Encode a number as protobuf does."""
    low = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([*(byte | 0x80 for byte in low[:-1]), low[-1]])


def field(number, data):
    """Encode a field with a length."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def metadata(**changes):
    """Encode the metadata entries of a model of ours."""
    entries = replace(INFO, **changes).to_metadata().items()
    return b"".join(field(14, field(1, key.encode()) + field(2, value.encode())) for key, value in entries)


def model(**changes):
    """Encode a model of ours whose graph ONNX Runtime cannot load; begins with the number ir_version."""
    return varint(1 << 3) + varint(10) + field(7, b"no graph") + metadata(**changes)
