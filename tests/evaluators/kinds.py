"""Pictures of every kind, and what each is by numpy alone."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Kind = tuple[str, int, type, Callable[[Path, np.ndarray], None], Callable[[np.ndarray], np.ndarray]]


def deep_png(path: Path, pixels: np.ndarray) -> None:
    """A PNG of 16 bits a channel: pixels uint16 (H, W, 1 to 4)."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def tiff(
    path: Path, pixels: np.ndarray, order: str = "<", white_is_zero: bool = False, planar: bool = False, kind: int = 1
) -> None:
    """A TIFF as its specification has it, not compressed: pixels (H, W, channels) of any type.

    `kind` is its SampleFormat: 1 unsigned, 2 signed, 3 floating point.
    """
    height, width, channels = pixels.shape
    bits = 8 * pixels.dtype.itemsize
    body = (np.moveaxis(pixels, 2, 0) if planar else pixels).astype(pixels.dtype.newbyteorder(order)).tobytes()
    photometric = 2 if channels > 2 else int(not white_is_zero)
    planes = channels if planar else 1
    size, after = len(body) // planes, 8 + len(body)
    arrays = {258: (bits,) * channels, 339: (kind,) * channels}
    offsets = tuple(8 + plane * size for plane in range(planes))
    entries: list[tuple[int, int, tuple[int, ...]]] = [
        (256, 4, (width,)), (257, 4, (height,)), (258, 3, arrays[258]), (259, 3, (1,)), (262, 3, (photometric,)),
        (273, 4, offsets), (277, 3, (channels,)), (278, 4, (height,)), (279, 4, (size,) * planes),
        (284, 3, (2 if planar else 1,)), *([(338, 3, (2,))] if channels in (2, 4) else []), (339, 3, arrays[339]),
    ]  # fmt: skip
    table, extra = b"", b""
    extra_at = after + 2 + 12 * len(entries) + 4
    for tag, form, values in entries:
        packed = struct.pack(f"{order}{len(values)}{'H' if form == 3 else 'I'}", *values)
        if len(packed) > 4:
            extra, packed = extra + packed, struct.pack(f"{order}I", extra_at + len(extra))
        table += struct.pack(f"{order}HHI", tag, form, len(values)) + packed.ljust(4, b"\0")
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, after)
    path.write_bytes(start + body + struct.pack(f"{order}H", len(entries)) + table + bytes(4) + extra)


def twelve_bits(path: Path, pixels: np.ndarray) -> None:
    """A TIFF of 12 bits a pixel, packed: uint16 (H, W, 1) of even width, up to 4095."""
    pairs = pixels.reshape(-1, 2).astype(np.uint32)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1)
    tiff(path, packed.astype(np.uint8).reshape(len(pixels), -1, 1))
    content = bytearray(path.read_bytes())
    table = 8 + packed.size + 2
    for at in range(table, len(content) - 12, 12):
        tag = struct.unpack_from("<H", content, at)[0]
        if tag in (256, 258):
            content[at + 8 : at + 12] = struct.pack("<I", pixels.shape[1] if tag == 256 else 12)
    path.write_bytes(bytes(content))


def _scaled(white: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda pixels: np.round(pixels.astype(np.float64) * 255 / white).repeat(3, axis=2)[..., :3]


def _saved(mode: str) -> Callable[[Path, np.ndarray], None]:
    return lambda path, pixels: Image.fromarray(pixels.squeeze(), mode if mode != "palette" else None).save(path)


def _grey(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., :1].repeat(3, axis=2)


# name: ending, channels, largest value, type, how it is written, RGB of 0..255 it means
KINDS: dict[str, tuple[str, int, int, type, Callable[[Path, np.ndarray], None], Callable[[np.ndarray], np.ndarray]]] = {
    "grey PNG": ("png", 1, 255, np.uint8, lambda p, a: Image.fromarray(a[..., 0]).save(p), _grey),
    "grey-alpha PNG": ("png", 2, 255, np.uint8, lambda p, a: Image.fromarray(a).save(p), _grey),
    "RGB PNG": ("png", 3, 255, np.uint8, lambda p, a: Image.fromarray(a).save(p), lambda a: a),
    "RGB PNG with a transparent colour": (
        "png", 3, 255, np.uint8, lambda p, a: Image.fromarray(a).save(p, transparency=(1, 2, 3)), lambda a: a),
    "grey PNG with a transparent grey": (
        "png", 1, 255, np.uint8, lambda p, a: Image.fromarray(a[..., 0]).save(p, transparency=7), _grey),
    "RGBA PNG": ("png", 4, 255, np.uint8, lambda p, a: Image.fromarray(a).save(p), lambda a: a[..., :3]),
    "bits PNG": (
        "png", 1, 1, np.uint8, lambda p, a: Image.fromarray(a[..., 0] > 0).save(p), lambda a: _grey(a) * 255),
    "BMP": ("bmp", 3, 255, np.uint8, lambda p, a: Image.fromarray(a).save(p), lambda a: a),
    "lossless WebP": (
        "webp", 3, 255, np.uint8, lambda p, a: Image.fromarray(a).save(p, lossless=True), lambda a: a),
    "JPEG 2000": (
        "jp2", 3, 255, np.uint8, lambda p, a: Image.fromarray(a).save(p, irreversible=False), lambda a: a),
    "grey TIFF": ("tif", 1, 255, np.uint8, tiff, _grey),
    "grey TIFF, white is zero": (
        "tif", 1, 255, np.uint8, lambda p, a: tiff(p, a, white_is_zero=True), lambda a: 255 - _grey(a)),
    "RGB TIFF by planes": ("tif", 3, 255, np.uint8, lambda p, a: tiff(p, a, planar=True), lambda a: a),
    "16-bit grey PNG": ("png", 1, 65535, np.uint16, deep_png, _scaled(65535)),
    "16-bit grey-alpha PNG": ("png", 2, 65535, np.uint16, deep_png, lambda a: _grey(a >> 8)),
    "16-bit RGB PNG": ("png", 3, 65535, np.uint16, deep_png, lambda a: a >> 8),
    "16-bit RGBA PNG": ("png", 4, 65535, np.uint16, deep_png, lambda a: a[..., :3] >> 8),
    "16-bit grey TIFF": ("tif", 1, 65535, np.uint16, tiff, _scaled(65535)),
    "16-bit grey TIFF, big-endian": ("tif", 1, 65535, np.uint16, lambda p, a: tiff(p, a, ">"), _scaled(65535)),
    "16-bit grey TIFF, white is zero": (
        "tif", 1, 65535, np.uint16, lambda p, a: tiff(p, a, white_is_zero=True), lambda a: _scaled(65535)(65535 - a)),
    "16-bit grey TIFF, compressed": (
        "tif", 1, 65535, np.uint16, lambda p, a: Image.fromarray(a[..., 0]).save(p, compression="tiff_lzw"),
        _scaled(65535)),
    "16-bit RGB TIFF": ("tif", 3, 65535, np.uint16, tiff, lambda a: a >> 8),
    "16-bit RGB TIFF, big-endian": ("tif", 3, 65535, np.uint16, lambda p, a: tiff(p, a, ">"), lambda a: a >> 8),
    "16-bit RGBA TIFF": ("tif", 4, 65535, np.uint16, tiff, lambda a: a[..., :3] >> 8),
    "12-bit grey TIFF": ("tif", 1, 4095, np.uint16, twelve_bits, _scaled(4095)),
    "32-bit grey TIFF of 16-bit values": ("tif", 1, 65535, np.uint32, tiff, _scaled(65535)),
    "16-bit PGM": (
        "pgm", 1, 65535, np.uint16,
        lambda p, a: p.write_bytes(b"P5 %d %d 65535\n" % (a.shape[1], a.shape[0]) + a.astype(">u2").tobytes()),
        _scaled(65535)),
    "10-bit PGM": (
        "pgm", 1, 1023, np.uint16,
        lambda p, a: p.write_bytes(b"P5 %d %d 1023\n" % (a.shape[1], a.shape[0]) + a.astype(">u2").tobytes()),
        _scaled(1023)),
}  # fmt: skip


def pixels(name: str, width: int, height: int, seed: int) -> np.ndarray:
    """Random pixels of a kind, (H, W, channels), its darkest and its brightest value among them."""
    _, channels, most, dtype, _, _ = KINDS[name]
    made = np.random.default_rng(seed).integers(0, most + 1, (height, width, channels)).astype(dtype)
    made[0, 0], made[-1, -1] = 0, most
    return made
