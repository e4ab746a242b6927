"""What names a content: the hash of a whole file."""

from __future__ import annotations

from pathlib import Path

import xxhash

_CHUNK_BYTES = 4 << 20


def hash_content(data: bytes) -> str:
    """Names a content: xxh3 with 128 bits over the whole file, 32 hex digits.

    It runs at the speed of memory, where the cryptographic hashes would cost about a tenth of
    decoding; 128 bits make an accidental meeting among a billion photos less likely than 1e-20.
    """
    return xxhash.xxh3_128_hexdigest(data)


def hash_file(path: Path) -> str:
    """``hash_content`` of a file that is too large to hold, such as a video; raises OSError."""
    state = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            state.update(chunk)
    return str(state.hexdigest())


def moment_hash(video_hash: str, time_s: float) -> str:
    """Names a moment of a video, by the video's hash and the milliseconds from its start."""
    return f"{video_hash}-{round(time_s * 1000):09d}"
