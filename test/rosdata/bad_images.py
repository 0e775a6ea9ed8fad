"""Image messages that no camera should send, each with the cause to count it under and what the log says."""

import array
import struct
from functools import cache

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from unusual_files import GIGAPIXEL_PNG, black_png

# fmt: off
ENCODINGS = [
    "mono8", "8UC1", "mono16", "16UC1", "rgb8", "bgr8", "8UC3", "rgba8", "bgra8", "yuv422", "uyvy",
    "bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8", "yuv422_yuy2", "yuyv", "nv12", "nv21", "nv24",
    "bayer_rggb16", "bayer_bggr16", "bayer_gbrg16", "bayer_grbg16", "8UC4",
    "rgb16", "bgr16", "rgba16", "bgra16", "16UC3", "16UC4",
]
# fmt: on
PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
JPEG = cv2.imencode(".jpg", PICTURE)[1].tobytes()
PNG = cv2.imencode(".png", PICTURE)[1].tobytes()


def image_message(**fields):
    """A whole rgb8 image of 64 x 48 pixels but for the fields given."""
    values = {"width": 64, "height": 48, "encoding": "rgb8", "step": 192, "data": PICTURE.tobytes(), **fields}
    values["data"] = array.array("B", values["data"])
    return Image(**values)


def compressed_message(data, form="jpeg"):
    return CompressedImage(format=form, data=array.array("B", data))


def bomb_jpeg():
    """A JPEG of some hundred bytes that claims 65500 x 65500 pixels."""
    begin = JPEG.index(b"\xff\xc0")
    return JPEG[: begin + 5] + struct.pack(">HH", 65500, 65500) + JPEG[begin + 9 :]


@cache
def bomb_png():
    """A whole PNG of 80 kB that is 81 MB when it is decoded."""
    return black_png(9000, 9000, rows=9000)


BAD_RAW = [
    ("unknown_encoding", image_message(encoding="jpeg2000"), "'jpeg2000'; allowed: mono8"),
    ("unknown_encoding", image_message(encoding=""), "encoding ''"),
    ("unknown_encoding", image_message(encoding="a\nb"), "'a\\nb'"),
    ("empty_image", image_message(width=0), "0x48 rgb8"),
    ("empty_image", image_message(height=0, data=b""), "64x0 rgb8"),
    ("bad_step", image_message(step=191), "step of 191; allowed: at least 192"),
    ("bad_step", image_message(step=0), "step of 0"),
    ("bad_step", image_message(encoding="mono16", step=127), "at least 128"),
    ("short_data", image_message(data=bytes(9215)), "9215 bytes of data; allowed: step x height = 9216"),
    ("short_data", image_message(data=b""), "0 bytes of data"),
    ("short_data", image_message(width=65535, height=65535, step=3 * 65535, data=bytes(10)), "has 10 bytes"),
    ("short_data", image_message(encoding="nv12", step=64, data=bytes(64 * 48)), "height x 3 / 2 = 4608"),
    ("short_data", image_message(encoding="nv24", step=64, data=bytes(64 * 72)), "height x 3 = 9216"),
    ("long_data", image_message(data=bytes(192 * 48 + 1)), "9217 bytes"),
    ("odd_size", image_message(encoding="yuv422", width=63), "multiple of 2"),
    ("odd_size", image_message(encoding="nv12", height=47, step=64), "height that is a multiple of 2"),
]
BAD_COMPRESSED = [
    ("unknown_format", compressed_message(b"", "png"), "(format 'png') begins with b''"),
    ("unknown_format", compressed_message(b"GIF89a", "gif"), "allowed: jpeg, png"),
    ("unknown_format", compressed_message(bytes(12) + PNG, "16UC1; compressedDepth"), "compressedDepth"),
    ("broken_jpeg", compressed_message(JPEG[:40]), "without a size"),
    ("broken_jpeg", compressed_message(JPEG[: len(JPEG) // 2]), "is cut off"),
    ("broken_jpeg", compressed_message(JPEG[:2] + JPEG[-2:]), "without a size"),
    ("broken_png", compressed_message(PNG[:20], "png"), "without a size"),
    ("broken_png", compressed_message(PNG[: len(PNG) // 2], "png"), "is cut off"),
    ("too_large", compressed_message(bomb_jpeg()), "claims 65500x65500"),
    ("too_large", compressed_message(bomb_png(), "png"), "claims 9000x9000"),
    ("too_large", compressed_message(GIGAPIXEL_PNG, "png"), "claims 20000x60000"),
]


def mutated_image(random):
    """A whole image of a random encoding, with some of its fields changed at random."""

    def rows_of(encoding, height):
        return height * {"nv12": 3, "nv21": 3, "nv24": 6}.get(encoding, 2) // 2

    def length():
        return random.choice([0, 1, 2, 3, 5, 7, 9, 16, 31, 33, 2**16 - 1, 2**32 - 1])

    fields = {"encoding": random.choice(ENCODINGS), "width": 8, "height": 6, "step": 8 * 8}
    fields["is_bigendian"] = random.randrange(2)
    fields["data"] = random.randbytes(8 * 8 * rows_of(fields["encoding"], 6))
    changes = {
        "encoding": lambda: random.choice([*ENCODINGS, "", "32FC1", "\x7f\t" * 50]),
        **dict.fromkeys(("width", "height", "step"), length),
        "is_bigendian": lambda: random.randrange(256),
        "data": lambda: mutate_bytes(random, fields["data"]),
    }
    for name in random.sample(sorted(changes), random.randint(0, 3)):
        fields[name] = changes[name]()
    # Half of them fit their data again, so that more than the checks is tried.
    if random.random() < 0.5 and fields["height"] * fields["step"] < 10_000:
        fields["data"] = random.randbytes(rows_of(fields["encoding"], fields["height"]) * fields["step"])
    return image_message(**fields)


def mutate_bytes(random, data):
    """Bytes with some changed, cut off, put in or taken out."""
    data = bytearray(data)
    for _ in range(random.randint(0, 4)):
        place, count = random.randrange(len(data) + 1), random.randint(1, 8)
        removed, added = random.choice([(1, 1), (len(data), 0), (0, count), (count, 0)])
        data[place : place + removed] = random.randbytes(added)
    return bytes(data)
