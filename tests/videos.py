"""Videos that the tests make themselves: scenes of real photos, with the times of their cuts."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = (320, 180)
RATE = 10
Pixels = NDArray[np.uint8]

# Codec, pixel format, and options that make it fast; the encoders' own logs stay quiet.
H264 = ("libx264", "yuv420p", {"preset": "ultrafast", "crf": "23"})
H264_NO_KEYS = ("libx264", "yuv420p", {"preset": "ultrafast", "g": "100000", "sc_threshold": "0"})
H265_10 = (
    "libx265",
    "yuv420p10le",
    {"preset": "ultrafast", "x265-params": "log-level=none:pools=1:frame-threads=1"},
)
MPEG4 = ("mpeg4", "yuv420p", {"qscale": "4"})
VP8 = ("libvpx", "yuv420p", {"deadline": "realtime", "cpu-used": "8", "b": "800k"})
VP9 = ("libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8", "b": "800k"})
MPEG2 = ("mpeg2video", "yuv420p", {"b": "3M"})
MJPEG = ("mjpeg", "yuvj420p", {})
WMV2 = ("wmv2", "yuv420p", {"b": "2M"})
FLV1 = ("flv", "yuv420p", {"b": "2M"})
Codec = tuple[str, str, dict[str, str]]


def still(photo: Path, size: tuple[int, int] = SIZE) -> Pixels:
    """A photo squeezed to a frame."""
    with Image.open(photo) as opened:
        return np.asarray(opened.convert("RGB").resize(size))


def write_video(
    path: Path,
    frames: Sequence[Pixels],
    codec: Codec = H264,
    *,
    times_s: Sequence[float] | None = None,
    start_s: float = 0.0,
    rotation: int | None = None,
    is_mirrored: bool = False,
    pixel_ratio: Fraction | None = None,
    metadata: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    colours: dict[str, int] | None = None,
    sound_s: float = 0.0,
) -> Path:
    """Encodes RGB frames, RATE a second or at ``times_s``."""
    name, pixel_format, options = codec
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        container.metadata.update(metadata or {})
        track = container.add_stream(name, rate=RATE, options=options)
        track.width, track.height, track.pix_fmt = width, height, pixel_format
        if times_s is not None:
            track.codec_context.time_base = Fraction(1, 1000)
        if pixel_ratio is not None:
            track.codec_context.sample_aspect_ratio = pixel_ratio
        if rotation is not None:
            track.set_display_rotation(rotation, hflip=is_mirrored)
        for key, value in (colours or {}).items():
            setattr(track.codec_context, key, value)
        sound = container.add_stream("aac", rate=8000, layout="mono") if sound_s else None
        ticks = Fraction(1, 1000)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pixel_format)
            time_s = number / RATE if times_s is None else times_s[number]
            frame.time_base = ticks
            frame.pts = round((start_s + time_s) * 1000)
            container.mux(track.encode(frame))
        container.mux(track.encode())
        if sound is not None:
            container.mux(sound.encode(_silence(sound_s)))
            container.mux(sound.encode())
    return path


def write_sound(path: Path, *, cover: Pixels | None = None) -> Path:
    """A second of silence, with a cover picture where one is given."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=8000, layout="mono")
        picture = None
        if cover is not None:
            picture = container.add_stream("mjpeg", rate=1)
            picture.width, picture.height = cover.shape[1], cover.shape[0]
            picture.pix_fmt = "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            frame = av.VideoFrame.from_ndarray(cover, format="rgb24").reformat(format="yuvj420p")
            container.mux(picture.encode(frame))
            container.mux(picture.encode())
        container.mux(sound.encode(_silence(1.0)))
        container.mux(sound.encode())
    return path


def _silence(seconds: float) -> av.AudioFrame:
    samples = np.zeros((1, int(8000 * seconds)), dtype=np.float32)
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.sample_rate = 8000
    frame.pts = 0
    return frame
