"""Seconds of video per second of wall time for 1080p H.264, against decoding its key frames alone.

    python benchmarks/video.py [--seconds 30] [--file VIDEO]

Three clips of real photos that move and change are made on the fly: key frames as x264 sets them
(at cuts, at most 250 frames apart), every second as phones do, and none after the first. The
ceiling opens the file and decodes every key frame with PyAV, one thread, and does nothing with
them. ``--file`` measures a video of your own instead.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import av
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "sample_data"))
from gather import gather

from indexer.video import read_facts, read_moments

SIZE = (1920, 1080)
RATE = 30
SCENE_S = 6
CLIPS = {
    "x264's own key frames": {},
    "a key frame a second": {"g": str(RATE), "keyint_min": str(RATE), "sc_threshold": "0"},
    "one key frame": {"g": "1000000", "sc_threshold": "0"},
}
RUNS = 5


def make_clip(path: Path, photos: list[Image.Image], seconds: int, options: dict[str, str]) -> None:
    """Pans over one photo after another."""
    with av.open(str(path), "w") as container:
        track = container.add_stream(
            "libx264", rate=RATE, options={"preset": "ultrafast", "bf": "2", "crf": "23", **options}
        )
        track.width, track.height = SIZE
        track.pix_fmt = "yuv420p"
        for number in range(seconds * RATE):
            photo = photos[number // (SCENE_S * RATE) % len(photos)]
            at = number % (SCENE_S * RATE)
            shown = photo.crop((at, at // 2, at + SIZE[0], at // 2 + SIZE[1]))
            container.mux(track.encode(av.VideoFrame.from_image(shown)))
        container.mux(track.encode())


def decode_key_frames(path: Path) -> int:
    """The ceiling; each key frame from its own packet, which is faster than skip_frame."""
    frames = 0
    with av.open(str(path)) as container:
        track = container.streams.video[0]
        decoder = track.codec_context
        decoder.thread_count = 1
        for packet in container.demux(track):
            if packet.is_keyframe and packet.size:
                frames += len(decoder.decode(packet)) + len(decoder.decode(None))
                decoder.flush_buffers()
    return frames


def choose_moments(path: Path) -> int:
    read_facts(path, max_pixels=10**9)
    return sum(1 for _ in read_moments(path, max_pixels=10**9, target_side=224))


def measure(name: str, path: Path) -> None:
    """Takes turns, so that a busy machine is busy for both; the best run of each counts."""
    seconds = read_facts(path, max_pixels=10**9).duration_s
    best = {decode_key_frames: float("inf"), choose_moments: float("inf")}
    counts = {}
    for _ in range(RUNS):
        for work in (choose_moments, decode_key_frames):
            begun = time.perf_counter()
            counts[work] = work(path)
            best[work] = min(best[work], time.perf_counter() - begun)
    taken_s, least_s = best[choose_moments], best[decode_key_frames]
    print(
        f"{name}: {seconds:.0f} s of video in {taken_s:.2f} s, {seconds / taken_s:,.0f} x real "
        f"time, {counts[choose_moments]} moments; its {counts[decode_key_frames]} key frames alone "
        f"{least_s:.2f} s; {taken_s / least_s:.2f} x the ceiling"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--file", type=Path)
    arguments = parser.parse_args()
    if arguments.file:
        measure(arguments.file.name, arguments.file)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        gather(folder)
        large = (SIZE[0] + SCENE_S * RATE, SIZE[1] + SCENE_S * RATE)
        photos = [
            Image.open(path).convert("RGB").resize(large, Image.Resampling.BICUBIC)
            for path in sorted(folder.glob("*.*g"))[:10]
        ]
        for name, options in CLIPS.items():
            path = folder / "clip.mp4"
            make_clip(path, photos, arguments.seconds, options)
            measure(name, path)


if __name__ == "__main__":
    main()
