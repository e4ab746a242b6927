"""What a page shows is opened where a crash costs one answer; its errors are the usual ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_decoders import BROKEN_CODEC

from clipsearch import errors
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
    assert reader.read(path).tobytes() == load_image(path).tobytes()


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
        reader.read(tmp_path / name)
    with pytest.raises(kind) as ours:
        load_image(tmp_path / name, max_pixels=10_000)
    assert str(theirs.value) == str(ours.value)


def test_what_ends_its_decoder_costs_one_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: PictureReader
) -> None:
    monkeypatch.setattr(decoders, "PROGRAM", ("-c", BROKEN_CODEC))
    with pytest.raises(errors.ImageUnreadableError, match="crashed the decoder"):
        reader.read(save(tmp_path / "crash.png", 10, 10))
    assert reader.read(save(tmp_path / "sound.png", 10, 12)).size == (12, 10)


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
    assert reader.read(save(tmp_path / "sound.png", 10, 12)).size == (12, 10)
    assert mark.exists()
