"""What it costs to open each still-picture format, and to make its thumbnail.

    python benchmarks/formats.py [--repeats 5]

One photo (scikit-image's astronaut, enlarged to 12 megapixels: 4000 x 3000) is written in every
format that can be written here, then read as the indexer reads it (target side 192 pixels, in
brackets at full size) on one thread. HEIC needs PyAV to be written, JPEG XL its plugin; what is
missing is left out. Ratios are to the plain JPEG of the same run.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import io
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image
from skimage import data as skimage_data

from clipsearch.images import decode_image, make_thumbnail, read_header

SIZE = (4000, 3000)
TARGET_SIDE = 192
WIDE = "with a Display P3 profile"


def fastest_ms(work: Callable[[], object], repeats: int) -> float:
    """The fastest of several runs, which other programs disturbed least."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return 1000 * min(times)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def files(photo: Image.Image) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of the photo in each format."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # they write what Pillow cannot
    from test_formats import dng, heic, profile, psd

    srgb, wide = profile("sRGB"), profile("P3")
    yield "JPEG", encoded(photo, "JPEG", quality=88)
    yield "JPEG with an sRGB profile", encoded(photo, "JPEG", quality=88, icc_profile=srgb)
    yield f"JPEG {WIDE}", encoded(photo, "JPEG", quality=88, icc_profile=wide)
    yield "JPEG, progressive", encoded(photo, "JPEG", quality=88, progressive=True)
    yield "PNG", encoded(photo, "PNG", compress_level=3)
    yield f"PNG {WIDE}", encoded(photo, "PNG", compress_level=3, icc_profile=wide)
    yield "WebP", encoded(photo, "WEBP", quality=85, method=0)
    yield "TIFF", encoded(photo, "TIFF")
    yield "BMP", encoded(photo, "BMP")
    yield "GIF", encoded(photo.quantize(256), "GIF")
    yield "AVIF", encoded(photo, "AVIF", quality=70, speed=10)
    yield "JPEG 2000", encoded(photo, "JPEG2000", quality_layers=[12], irreversible=True)
    yield "PSD", psd(photo)
    if importlib.util.find_spec("av"):
        yield "HEIC", heic(photo)
        yield f"HEIC {WIDE}", heic(photo, profile=wide)
    if importlib.util.find_spec("pillow_jxl"):
        importlib.import_module("pillow_jxl")
        yield "JPEG XL", encoded(photo, "JXL", quality=85, effort=3, num_threads=1)
    yield "DNG, developed", dng(*SIZE)
    yield "DNG, its preview", dng(*SIZE, preview=encoded(photo.reduce(2), "JPEG", quality=88))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    photo = Image.fromarray(skimage_data.astronaut()).resize(SIZE, Image.Resampling.BICUBIC)

    print(f"{SIZE[0]} x {SIZE[1]}{'':20}header ms    read ms   ratio (full size ms)   MB")
    first = 0.0
    for name, held in files(photo):
        header = fastest_ms(lambda held=held: read_header(held, name="x"), repeats)
        read = fastest_ms(
            lambda held=held: decode_image(held, name="x", target_side=TARGET_SIDE), repeats
        )
        full = fastest_ms(lambda held=held: decode_image(held, name="x"), min(repeats, 2))
        first = first or read
        cost = f"{header:8.2f}{read:11.1f}{read / first:8.2f}{full:15.0f}"
        print(f"{name:34}{cost}{len(held) / 1e6:9.1f}")

    reduced = decode_image(encoded(photo, "JPEG"), name="x", target_side=TARGET_SIDE)
    jpeg = fastest_ms(lambda: make_thumbnail(reduced), 10 * repeats)
    small = reduced.copy()
    small.thumbnail((320, 320), Image.Resampling.BILINEAR)
    webp = {
        method: fastest_ms(lambda method=method: encoded(small, "WEBP", method=method), repeats)
        for method in (0, 4)
    }
    plain = fastest_ms(lambda: encoded(small, "JPEG", quality=80), 10 * repeats)
    print(f"\nthumbnail of 320 px from {reduced.width} x {reduced.height}: {jpeg:.2f} ms")
    print(f"its encoding alone: JPEG {plain:.2f} ms", end="")
    for method, cost in webp.items():
        print(f", WebP method {method} {cost:.1f} ms ({cost / plain:.0f} x)", end="")
    print()


if __name__ == "__main__":
    main()
