"""What a page shows is opened where a crash costs one answer; its errors are the usual ones."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_decoders import BROKEN_CODEC

from clipsearch import errors
from clipsearch.hashing import hash_file
from clipsearch.images import load_image
from indexer import decoders
from indexer.picture_reading import PictureReader


@pytest.fixture
def reader() -> Iterator[PictureReader]:
    made = PictureReader(10_000)
    yield made
    made.close()


def save(path: Path, *size: int) -> Path:
    noise = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def test_a_picture_comes_as_if_it_were_opened_here(reader: PictureReader, tmp_path: Path) -> None:
    path = save(tmp_path / "photo.png", 60, 80)
    assert reader.read(path, target_side=512).tobytes() == load_image(path).tobytes()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("large.png", errors.ImageTooLargeError),
        ("empty.jpg", errors.ImageEmptyError),
        ("text.jpg", errors.ImageUnreadableError),
        ("missing.jpg", errors.ImageNotFoundError),
    ],
)
def test_errors_are_those_of_opening_it_here(
    reader: PictureReader, tmp_path: Path, name: str, kind: type[errors.ImageError]
) -> None:
    save(tmp_path / "large.png", 200, 200)
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(kind) as theirs:
        reader.read(tmp_path / name, target_side=512)
    with pytest.raises(kind) as ours:
        load_image(tmp_path / name, max_pixels=10_000)
    assert str(theirs.value) == str(ours.value)


def test_what_ends_its_decoder_costs_one_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: PictureReader
) -> None:
    monkeypatch.setattr(decoders, "PROGRAM", ("-c", BROKEN_CODEC))
    with pytest.raises(errors.ImageUnreadableError, match="crashed the decoder"):
        reader.read(save(tmp_path / "crash.png", 10, 10), target_side=512)
    sound = save(tmp_path / "sound.png", 10, 12)
    assert reader.read(sound, target_side=512).size == (12, 10)


def test_what_is_shown_is_small_and_is_what_was_indexed(
    reader: PictureReader, tmp_path: Path
) -> None:
    path = save(tmp_path / "photo.png", 60, 80)
    how = {"side": 40, "quality": 80, "target_side": 20}
    shown = reader.encode(path, content_hash=hash_file(path), **how)
    with Image.open(io.BytesIO(shown)) as picture:
        assert (picture.format, picture.size) == ("JPEG", (40, 30))
    known = hash_file(path)
    save(path, 40, 60)
    with pytest.raises(errors.ImageUnreadableError, match="not the file that was indexed"):
        reader.encode(path, content_hash=known, **how)


def test_what_takes_too_much_memory_is_refused_and_given_back(tmp_path: Path) -> None:
    """Two such at once, of rows that can only be decoded as a whole; a small one beside them."""
    data = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", 13_900, 13_900, 8, 2, 0, 0, 1)  # interlaced
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")):
        check = struct.pack(">I", zlib.crc32(kind + body))
        data += struct.pack(">I", len(body)) + kind + body + check
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(data)
    small = save(tmp_path / "small.png", 30, 40)
    reader = PictureReader(200_000_000)
    try:
        with ThreadPoolExecutor(3) as pool:
            bombs = [pool.submit(reader.read, bomb, target_side=512) for _ in range(2)]
            assert reader.read(small, target_side=512).size == (40, 30)
            for answer in bombs:
                with pytest.raises(errors.ImageUnreadableError, match="memory"):
                    answer.result()
        assert reader.read(small, target_side=512).size == (40, 30)
    finally:
        reader.close()


def test_what_someone_else_ends_is_asked_for_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: PictureReader
) -> None:
    mark = tmp_path / "ended"
    first_ends = BROKEN_CODEC.replace(
        'if "crash" in name:',
        f"if not os.path.exists({str(mark)!r}):\n"
        f'        open({str(mark)!r}, "w").close()\n'
        "        signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
        "        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        '    if "crash" in name:',
    )
    monkeypatch.setattr(decoders, "PROGRAM", ("-c", first_ends))
    assert reader.read(save(tmp_path / "sound.png", 10, 12), target_side=512).size == (12, 10)
    assert mark.exists()
