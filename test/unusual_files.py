"""Bytes of PNG and JPEG files that encoders seldom write."""

import struct
import zlib


def turned(jpeg, orientation):
    """A JPEG with an Exif orientation: 3 is half a turn, 6 and 8 are quarters."""
    tiff = b"MM\0*\0\0\0\10\0\1" + struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0) + bytes(4)
    return with_segment(jpeg, b"Exif\0\0" + tiff)


def with_segment(jpeg, content):
    """A JPEG with an APP1 segment before all others."""
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + jpeg[2:]


def without_huffman_tables(jpeg):
    """A JPEG as USB cameras send it in MJPEG streams."""
    found, position = jpeg[:2], 2
    while jpeg[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
        found += b"" if jpeg[position + 1] == 0xC4 else jpeg[position:end]
        position = end
    return found + jpeg[position:]


def black_png(width, height, rows):
    """A grey PNG that claims a size and holds a number of black rows."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes((width + 1) * rows))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 132\n"
GIGAPIXEL_PNG = black_png(20_000, 60_000, rows=1)
