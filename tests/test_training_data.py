"""Captions in every form: the same pictures and words from each, and nothing fatal in a bad row."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from PIL import Image

from clipsearch.encoders.preprocessing import Preprocessing
from clipsearch.errors import CaptionFileError, DependencyError, ImageError, UsageError
from clipsearch.library import Library
from training.captions.images import LooseImage, Spill
from training.captions.library import of_tags
from training.captions.rows import Columns
from training.data import (
    CaptionedPicture,
    CaptionSource,
    read_captions,
    require_distinct,
    split_by_content,
)
from training.views import Cut, Views

Picture = tuple[str, bytes, list[str]]


def jpeg(seed: int, size: tuple[int, int] = (96, 64), quality: int = 90) -> bytes:
    """A picture with shapes of its own: noise of a few pixels, enlarged."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(
        buffer, "JPEG", quality=quality
    )
    return buffer.getvalue()


PICTURES: list[Picture] = [
    (f"p{seed}", jpeg(seed), [f"picture {seed}", f"the number {seed}, again"]) for seed in range(4)
]


def as_files(folder: Path, pictures: list[Picture] = PICTURES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data, _ in pictures:
        (folder / f"{name}.jpg").write_bytes(data)


def make_delimited(path: Path, delimiter: str) -> None:
    as_files(path.parent / "photos")
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["filepath", "title"])
        writer.writerows([f"photos/{n}.jpg", said] for n, _, texts in PICTURES for said in texts)


def make_csv(folder: Path) -> Path:
    make_delimited(folder / "c.csv", ";")
    return folder / "c.csv"


def make_tsv(folder: Path) -> Path:
    make_delimited(folder / "c.tsv", "\t")
    return folder / "c.tsv"


def make_json_lines(folder: Path) -> Path:
    as_files(folder / "photos")
    lines = [json.dumps({"image": f"photos/{n}.jpg", "captions": t}) for n, _, t in PICTURES]
    (folder / "c.jsonl").write_text("\n".join(lines))
    return folder / "c.jsonl"


def make_image_folder(folder: Path) -> Path:
    as_files(folder)
    lines = [json.dumps({"file_name": f"{n}.jpg", "text": t}) for n, _, t in PICTURES]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def make_sidecars(folder: Path) -> Path:
    as_files(folder / "deep")
    for place, (name, _, texts) in enumerate(PICTURES):
        beside = f"{name}.txt" if place % 2 else f"{name}.jpg.txt"
        (folder / "deep" / beside).write_text("\n\n".join(texts))
    return folder


def make_tar(path: Path, mode: str = "w", more: Callable[[Any], None] | None = None) -> Path:
    with tarfile.open(path, mode) as tar:

        def add(name: str, data: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))

        for place, (name, data, texts) in enumerate(PICTURES):
            add(f"./set.1/{name}.JPG", data)
            if place % 2:
                add(f"./set.1/{name}.json", json.dumps({"caption": texts, "width": 3}).encode())
            else:
                add(f"./set.1/{name}.txt", "\n".join(texts).encode())
        if more is not None:
            more(add)
    return path


def make_shards(folder: Path) -> Path:
    make_tar(folder / "00000.tar")
    return folder


def make_parquet(folder: Path) -> Path:
    cells = [{"bytes": data, "path": f"{name}.jpg"} for name, data, _ in PICTURES]
    table = {"path": ["x"] * 4, "image": cells, "captions": [t for _, _, t in PICTURES]}
    pq.write_table(pa.table(table), folder / "c.parquet")
    return folder / "c.parquet"


def make_parquet_of_bytes(folder: Path) -> Path:
    table = {"jpg": [d for _, d, _ in PICTURES], "text": [t for _, _, t in PICTURES]}
    pq.write_table(pa.table(table), folder / "part-0.parquet", row_group_size=3)
    return folder


FORMS: list[Callable[[Path], Path]] = [
    make_csv,
    make_tsv,
    make_json_lines,
    make_image_folder,
    make_sidecars,
    lambda folder: make_tar(folder / "c.tar"),
    lambda folder: make_tar(folder / "c.tar.gz", "w:gz"),
    make_shards,
    make_parquet,
    make_parquet_of_bytes,
]


@pytest.mark.parametrize("make", FORMS)
def test_every_form_gives_the_same_pictures_and_captions(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    found = read_captions(make(tmp_path), tmp_path)
    assert [picture.captions for picture in found.pictures] == [tuple(t) for _, _, t in PICTURES]
    assert [picture.image.read() for picture in found.pictures] == [d for _, d, _ in PICTURES]
    hashes = [xxhash.xxh3_128_hexdigest(data) for _, data, _ in PICTURES]
    assert [picture.content_hash for picture in found.pictures] == hashes
    assert not found.skipped


def test_columns_may_be_named(tmp_path: Path) -> None:
    as_files(tmp_path)
    rows = "".join(f"wrong,{n}.jpg,no,words of {n}\n" for n, _, _ in PICTURES)
    file = tmp_path / "c.csv"
    file.write_text("path,picture file,caption,alt\n" + rows)
    columns = Columns("picture file", "alt")
    found = read_captions(CaptionSource((file,), columns=columns))
    assert [p.captions for p in found.pictures] == [(f"words of {n}",) for n, _, _ in PICTURES]
    with pytest.raises(CaptionFileError, match="picture file"):
        read_captions(CaptionSource((file,), columns=Columns("photo", "alt")))


def test_sources_are_put_together_and_copies_are_one_picture(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "p1 again.jpg").write_bytes(PICTURES[1][1])
    (tmp_path / "more" / "p1 again.txt").write_text("another word for it")
    sources = (make_parquet(tmp_path), tmp_path / "more")
    found = read_captions(CaptionSource(sources))
    assert found.pictures[1].captions == (*PICTURES[1][2], "another word for it")
    assert len(found.pictures) == len(PICTURES)


def test_bad_rows_are_listed_with_their_reasons(tmp_path: Path) -> None:
    as_files(tmp_path)
    lines = [json.dumps({"image": f"{n}.jpg", "caption": t[0]}) for n, _, t in PICTURES]
    bad = [
        '{"image": "gone.jpg", "caption": "a"}',
        '{"image": "https://example.org/a.jpg", "caption": "a"}',
        '{"image": "p0.jpg", "caption": "  "}',
        '{"image": 7, "caption": "a"}',
        "{half",
        "[1]",
        '{"width": 3}',
    ]
    (tmp_path / "c.jsonl").write_text("\n".join([*lines, *bad]))
    found = read_captions(tmp_path / "c.jsonl")
    assert len(found.pictures) == 4
    assert [row.where for row in found.skipped] == [f"c.jsonl:{n}" for n in range(5, 12)]
    told = [row.reason for row in found.skipped]
    words = ("there is no file", "nothing is downloaded", "no caption", "no picture", "not JSON",
             "not a JSON object", "--image-column")  # fmt: skip
    for reason, word in zip(told, words, strict=True):
        assert word.casefold() in reason.casefold()


def test_a_comma_without_quotes_is_seen(tmp_path: Path) -> None:
    as_files(tmp_path)
    (tmp_path / "c.csv").write_text(
        "path,caption\np0.jpg,one\np1.jpg,two\np2.jpg,three, and more\np3.jpg\n"
    )
    found = read_captions(tmp_path / "c.csv")
    assert [(row.where, "quotes" in row.reason) for row in found.skipped] == [
        ("c.csv:4", True),
        ("c.csv:5", False),
    ]


def test_labels_stand_in_where_nobody_wrote_a_caption(tmp_path: Path) -> None:
    cells = [data for _, data, _ in PICTURES[:3]]
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "sports_car", "tree"]}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"image": cells, "label": [1, 0, 2]}).replace_schema_metadata(metadata)
    pq.write_table(table, tmp_path / "c.parquet")
    said = [p.captions for p in read_captions(tmp_path / "c.parquet").pictures]
    assert said == [("a photo of sports car",), ("a photo of cat",), ("a photo of tree",)]


def test_classes_of_a_tar_have_names_beside_it(tmp_path: Path) -> None:
    def more(add: Callable[[str, bytes], None]) -> None:
        for number in range(3):
            add(f"c{number}.jpg", jpeg(10 + number))
            add(f"c{number}.cls", str(number).encode())

    tar = make_tar(tmp_path / "c.tar", more=more)
    told = [row.reason for row in read_captions(tar).skipped]
    assert told == [
        f"its class {n} has no name: put classnames.txt beside the tar" for n in range(3)
    ]
    (tmp_path / "classnames.txt").write_text("a dog\na cat\n")
    found = read_captions(tar)
    assert [p.captions for p in found.pictures[4:]] == [
        ("a photo of a dog",),
        ("a photo of a cat",),
    ]
    assert len(found.skipped) == 1


def test_a_tar_reaches_nothing_outside_it(tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(jpeg(99))
    inside = tmp_path / "inside"
    inside.mkdir()
    with tarfile.open(make_tar(inside / "c.tar"), "a") as tar:
        for name, kind, target in (
            ("link.jpg", tarfile.SYMTYPE, str(secret)),
            ("hard.jpg", tarfile.LNKTYPE, "../secret.jpg"),
            ("pipe.jpg", tarfile.FIFOTYPE, ""),
            ("device.jpg", tarfile.CHRTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            tar.addfile(member)
            text = tarfile.TarInfo(name.replace(".jpg", ".txt"))
            text.size = 4
            tar.addfile(text, io.BytesIO(b"text"))
        outside = tarfile.TarInfo("../../escaped.jpg")
        outside.size = len(PICTURES[0][1])
        tar.addfile(outside, io.BytesIO(PICTURES[0][1]))
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    found = read_captions(inside / "c.tar")
    assert len(found.pictures) == 4
    assert all("secret" not in picture.image.name for picture in found.pictures)
    assert len(found.skipped) == 5
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_that_breaks_off_gives_what_it_has(tmp_path: Path, mode: str) -> None:
    whole = make_tar(tmp_path / "whole.tar", mode).read_bytes()
    broken = tmp_path / "broken.tar"
    broken.write_bytes(whole[: int(len(whole) * 0.6)])
    found = read_captions(broken)
    assert 2 <= len(found.pictures) < 4
    assert any("broken.tar" in row.where for row in found.skipped)
    broken.write_bytes(b"no tar at all" * 100)
    with pytest.raises(CaptionFileError, match="cannot be read"):
        read_captions(broken)


def test_a_text_without_its_photo_is_listed(tmp_path: Path) -> None:
    make_sidecars(tmp_path)
    (tmp_path / "deep" / "typo.txt").write_text("a caption")
    (tmp_path / "deep" / "without.jpg").write_bytes(jpeg(50))
    (tmp_path / "deep" / "p1.txt").write_bytes(b"\xff\xfe\x00")
    found = read_captions(tmp_path)
    assert len(found.pictures) == 3
    assert {(row.name, row.reason[:11]) for row in found.skipped} == {
        ("typo.txt", "there is no"),
        ("p1.jpg", "its text ca"),
    }
    (tmp_path / "none").mkdir()
    with pytest.raises(CaptionFileError, match="no photos"):
        read_captions(tmp_path / "none")


def test_files_that_are_no_captions_say_what_would_be(tmp_path: Path) -> None:
    (tmp_path / "c.docx").write_bytes(b"x")
    with pytest.raises(CaptionFileError, match=r"\.jsonl, \.parquet or \.tar"):
        read_captions(tmp_path / "c.docx")
    (tmp_path / "c.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(CaptionFileError, match=r"c\.parquet"):
        read_captions(tmp_path / "c.parquet")
    pq.write_table(pa.table({"a": [1], "b": ["x"]}), tmp_path / "c.parquet")
    with pytest.raises(CaptionFileError, match="columns are a, b"):
        read_captions(tmp_path / "c.parquet")


def test_parquet_without_its_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_parquet(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(DependencyError, match=r"clipsearch\[parquet\]"):
        read_captions(file)


# --- the split ------------------------------------------------------------------------------


def test_a_resized_copy_is_never_on_the_other_side_of_the_split(tmp_path: Path) -> None:
    pictures = [(f"q{n}", jpeg(n, (400, 300)), ["x"]) for n in range(12)]
    copies = []
    for name, data, _ in pictures[:6]:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(data)).resize((200, 150)).save(buffer, "JPEG", quality=70)
        copies.append((f"{name} small", buffer.getvalue(), ["x"]))
    as_files(tmp_path, [*pictures, *copies])
    lines = [json.dumps({"path": f"{n}.jpg", "text": n}) for n, _, _ in [*pictures, *copies]]
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    found = read_captions(tmp_path / "c.jsonl")
    assert (len(found.pictures), found.near_copies) == (18, 6)
    for seed in range(20):
        sides = split_by_content(found.pictures, 0.3, seed)
        groups = [{picture.group for picture in side} for side in sides]
        assert not groups[0] & groups[1]
        assert len(sides[0]) + len(sides[1]) == 18
        assert 4 <= len(sides[1]) <= 7


# --- out of the library ---------------------------------------------------------------------


def test_the_library_gives_what_people_said_and_nothing_a_model_guessed(
    library_copy: Library,
) -> None:
    present = [int(item) for item in library_copy.present_items()]
    numbers = {at[0].name: item for item, at in library_copy.paths(present).items()}
    names = ("cat.png", "coffee.png", "motorcycle.png", "cheetah-running.jpg", "coins.png")
    ids = [numbers[name] for name in (*names, "grass.png", "handwriting.png")]
    library_copy.opinions.answer("our old cat", ids[0], relevant=True)
    library_copy.opinions.answer("a wrong guess", ids[1], relevant=False)
    library_copy.opinions.answer("cat rating:5", ids[1], relevant=True)
    library_copy.opinions.answer("cat -dog", ids[1], relevant=True)
    with library_copy.writer() as writer:
        writer.tags.add_by_hand([ids[2], ids[3], ids[5]], "Animals|Rex")
        writer.tags.add_by_hand([ids[3]], "garden")
        writer.tags.replace_items("words", [ids[6]], [(ids[6], "guessed", 0.9)])
        writer.tags.answer(ids[4], "pyramid", accepted=True)
        writer.tags.answer(ids[4], "tent", accepted=False)
        writer.tags.answer(ids[5], "Animals|Rex", accepted=False)
    found = read_captions(CaptionSource(library=library_copy.path))
    paths = library_copy.paths(ids)
    said = {picture.image.name: picture.captions for picture in found.pictures}

    def of(place: int) -> tuple[str, ...]:
        return said.get(str(paths[ids[place]][0]), ())

    assert of(0) == ("our old cat",)
    assert of(1) == ()
    assert of(2) == ("a photo of Rex",)
    of_its_file, *of_tags_given = of(3)
    assert of_its_file.startswith("CHEETAH acinonyx jubatus"), "the photo's own IPTC caption"
    assert of_tags_given == ["a photo of Rex", "a photo of garden", "a photo of Rex and garden"]
    assert of(4) == ("a photo of pyramid",)
    assert of(5) == ()
    assert of(6) == ()


def test_a_library_of_which_nobody_said_anything_is_refused_with_what_counts(
    tmp_path: Path,
) -> None:
    with Library.open(tmp_path / "test.clipsearch", create=True) as library:
        path = library.path
    with pytest.raises(CaptionFileError, match="thumbs up for plain queries"):
        read_captions(CaptionSource(library=path))


def test_tags_become_captions_by_the_documented_rules() -> None:
    assert of_tags(["cat"]) == ["a photo of cat"]
    assert of_tags(["Places|France", "places/france"]) == ["a photo of France"]
    assert of_tags(["a", "b", "c"])[-1] == "a photo of a, b and c"
    assert len(of_tags(["a", "b", "c", "d", "e"])) == 5
    assert of_tags([]) == of_tags(["| "]) == []


# --- pictures -------------------------------------------------------------------------------


def test_pictures_beyond_the_memory_are_the_same_pixels(tmp_path: Path) -> None:
    pictures = read_captions(make_parquet(tmp_path)).pictures
    how = Preprocessing(32, 32, (0, 0, 0), (1, 1, 1), "bicubic", "shortest", 0)
    cut = Cut(least=0.5, aspect=1.5, flip=True)
    kept = Views(pictures, how, cut)
    read_again = Views(pictures, how, cut, kept_bytes=0)
    for places in ([0, 1, 2, 3], [3, 0], [2, 2]):
        assert np.array_equal(kept.whole(places), read_again.whole(places))
        once = kept.cut(places, random.Random(5))
        assert np.array_equal(once, kept.cut(places, random.Random(5)))
        assert np.array_equal(once, read_again.cut(places, random.Random(5)))
    assert not np.array_equal(kept.cut([0], random.Random(1)), kept.cut([0], random.Random(2)))


def gradient(width: int, height: int) -> bytes:
    """Red grows to the right, green downwards: a cut says where it is from."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, :, 0] = np.linspace(0, 255, width)[None]
    image[:, :, 1] = np.linspace(0, 255, height)[:, None]
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
def test_cuts_are_what_the_options_say(tmp_path: Path, mode: str) -> None:
    for name, size in (("a", (90, 60)), ("b", (60, 90))):
        (tmp_path / f"{name}.png").write_bytes(gradient(*size))
        (tmp_path / f"{name}.txt").write_text(name)
    pictures = read_captions(tmp_path).pictures
    how = Preprocessing(48, 48, (0, 0, 0), (1, 1, 1), "bicubic", mode, 0)

    def spans(cut: Cut, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
        """The middle row's red and the middle column's green of many cuts, (count, 48) each."""
        views, chance = Views(pictures[:1], how, cut), random.Random(0)
        pixels = np.concatenate([views.cut([0], chance) for _ in range(count)]).astype(float)
        return pixels[:, 0, 24], pixels[:, 1, :, 24]

    across, down = spans(Cut(least=1.0))
    if mode == "shortest":
        assert np.ptp(across[:, 24]) > 50, "the paper's square moves along the longer side"
        assert np.ptp(down, axis=1).min() > 230, "all of the shorter side"
        assert 150 < np.ptp(across, axis=1).mean() < 185, "two thirds of the longer"
    else:
        assert np.ptp(across, axis=1).min() > 230, "what is indexed is the whole picture"
        assert np.ptp(across[:, 24]) == 0
    smaller = np.ptp(spans(Cut(least=0.25))[0], axis=1) / np.ptp(across, axis=1).mean()
    assert 0.4 < smaller.min() < 0.65
    assert smaller.max() > 0.9
    across, _ = spans(Cut(least=1.0, flip=True))
    assert 15 < (across[:, 30] > across[:, 18]).sum() < 45
    across, down = spans(Cut(least=1.0, aspect=2.0))
    inner = slice(17, 31)  # in every mode within the picture, whose padding is black
    steepness = np.ptp(across[:, inner], axis=1) / np.ptp(down[:, inner], axis=1)
    assert 2.5 < steepness.max() / steepness.min() < 4.5


def test_spilled_pictures_leave_no_file(tmp_path: Path) -> None:
    spill = Spill(tmp_path)
    kept = [spill.keep(LooseImage(str(n), bytes([n]) * n)) for n in range(1, 5)]
    assert [image.read() for image in reversed(kept)] == [bytes([n]) * n for n in (4, 3, 2, 1)]
    if os.name == "posix":
        assert not list(tmp_path.iterdir())


def test_a_tar_that_was_cut_short_since_is_an_unreadable_picture(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "c.tar")
    last = read_captions(tar).pictures[-1].image
    tar.write_bytes(tar.read_bytes()[:1000])
    with pytest.raises(ImageError, match="ends before"):
        last.read()


def test_the_command_needs_something_to_learn_from(tmp_path: Path) -> None:
    from argparse import ArgumentParser

    from training.commands import train

    parser = ArgumentParser()
    train.configure(parser)
    for given, told in (
        (["--out", "x"], "--from-library"),
        (["--captions", "c.csv"], "--estimate"),
        (["--captions", "c.csv", "--out", "x", "--crop-scale", "0"], "--crop-scale"),
        (["--captions", "c.csv", "--out", "x", "--aspect-jitter", "0.5"], "--aspect-jitter"),
    ):
        with pytest.raises(UsageError, match=told):
            train.run(parser.parse_args(given))


# --- what people's files hold -----------------------------------------------------------------


def table(folder: Path, text: str | bytes, name: str = "c.csv", count: int = 4) -> Path:
    """A table beside ``count`` pictures p0.jpg, p1.jpg ..."""
    as_files(folder, [(f"p{seed}", jpeg(seed), []) for seed in range(count)])
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder / name


def said(path: Path) -> dict[str, tuple[str, ...]]:
    return {Path(p.image.name).name: p.captions for p in read_captions(path).pictures}


def test_a_quote_that_is_never_closed_costs_its_own_row(tmp_path: Path) -> None:
    rows = [f"p{n}.jpg,thing number {n}" for n in range(12)]
    rows[3] = 'p3.jpg,"the sign says stop'
    rows[6] = 'p6.jpg,"one line\r\nand another, with ""quotes"""'
    rows[7] = 'p7.jpg,"Hello" she said'
    rows[8] = 'p8.jpg,a screen of 5" and more'
    rows[9] = 'p9.jpg,"he said \\"stop\\", twice"'
    rows[10] = 'p10.jpg,the sign says stop"'
    rows[11] = '"p11.jpg","the end'
    file = table(tmp_path, "path,caption\n" + "\n".join(rows) + "\n", count=12)
    found = read_captions(file)
    assert [(row.where, row.name) for row in found.skipped] == [
        ("c.csv:5", "p3.jpg"),
        ("c.csv:14", '"p11.jpg"'),
    ]
    assert all("never closed" in row.reason for row in found.skipped)
    captions = said(file)
    assert captions["p4.jpg"] == ("thing number 4",)
    assert captions["p6.jpg"] == ('one line and another, with "quotes"',)
    assert captions["p7.jpg"] == ('"Hello" she said',)
    assert captions["p8.jpg"] == ('a screen of 5" and more',)
    assert captions["p9.jpg"] == ('he said "stop", twice',)
    assert captions["p10.jpg"] == ('the sign says stop"',)
    assert len(captions) == 10


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("utf-16-le"),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "\r").encode(),
        lambda text: ("sep=,\r\n" + text).encode(),
        lambda text: text.replace(",", ";").encode(),
        lambda text: text.replace(",", "| ").encode(),
        lambda text: text.replace("path", " Image_Name ").encode(),
    ],
    ids=["bom", "utf-16", "no bom", "crlf", "cr", "excel", "semicolon", "bar", "spaces"],
)
def test_tables_of_other_programs_are_read(tmp_path: Path, encode: Callable[[str], bytes]) -> None:
    file = table(tmp_path, encode("path,caption\np0.jpg,a café\np1.jpg,two\n"))
    assert said(file) == {"p0.jpg": ("a café",), "p1.jpg": ("two",)}
    assert not read_captions(file).skipped


def test_rows_that_are_no_text_are_listed_and_others_used(tmp_path: Path) -> None:
    rows = b"path,caption\np0.jpg,caf\xe9\np1.jpg,one\np2.jpg,t\0wo\np3.jpg,three\n"
    found = read_captions(table(tmp_path, rows))
    assert [row.where for row in found.skipped] == ["c.csv:2", "c.csv:4"]
    assert "UTF-8" in found.skipped[0].reason
    assert "NUL" in found.skipped[1].reason


def test_columns_of_one_name_are_all_read(tmp_path: Path) -> None:
    rows = "path,caption,caption\np0.jpg,one,uno\np1.jpg,two,\np2.jpg\np3.jpg,a,b,c\n"
    file = table(tmp_path, rows)
    assert said(file) == {"p0.jpg": ("one", "uno"), "p1.jpg": ("two",)}
    assert [row.where for row in read_captions(file).skipped] == ["c.csv:4", "c.csv:5"]
    with pytest.raises(CaptionFileError, match="2 times"):
        read_captions(table(tmp_path, "path,path,caption\na,b,c\n"))
    with pytest.raises(CaptionFileError, match=r"first line is 'p0\.jpg,one'"):
        read_captions(table(tmp_path, "p0.jpg,one\np1.jpg,two\n"))


@pytest.mark.parametrize(
    "cell",
    [
        '["a dog", "one dog, \\"Rex\\""]',
        """['a dog', 'one dog, "Rex"']""",
        """['a dog' 'one dog, "Rex"']""",
        """['a dog'\n 'one dog, "Rex"']""",
        """('a dog', 'one dog, "Rex"')""",
        '[{"raw": "a dog"}, {"raw": "one dog, \\"Rex\\""}]',
        '{"text": ["a dog", "one dog, \\"Rex\\""]}',
    ],
)
def test_a_cell_may_hold_a_list_of_captions(tmp_path: Path, cell: str) -> None:
    as_files(tmp_path)
    with (tmp_path / "c.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["raw", "filename"], [cell, "p0.jpg"], ["two", "p1.jpg"]])
    expected = ("a dog", 'one dog, "Rex"')
    assert said(tmp_path / "c.csv")["p0.jpg"] == expected
    lines = [{"image": "p0.jpg", "text": cell}, {"image": "p1.jpg", "text": "two"}]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert said(tmp_path / "c.jsonl")["p0.jpg"] == expected


def test_text_in_brackets_is_text_and_a_broken_list_is_listed(tmp_path: Path) -> None:
    lines = ["[laughs] a dog [barks]", "(a dog)", "['a dog' ... 'cat']", '["a dog", "ca']
    records = [{"image": f"p{n}.jpg", "text": text} for n, text in enumerate(lines)]
    file = table(tmp_path, "\n".join(map(json.dumps, records)), "c.jsonl")
    found = read_captions(file)
    assert [p.captions for p in found.pictures] == [(lines[0],), (lines[1],)]
    assert [(row.where, row.name) for row in found.skipped] == [
        ("c.jsonl:3", "p2.jpg"),
        ("c.jsonl:4", "p3.jpg"),
    ]


def test_names_of_pictures_are_taken_as_they_are_meant(tmp_path: Path) -> None:
    as_files(tmp_path / "my photos")
    (tmp_path / "my photos" / "p3.jpg").rename(tmp_path / "my photos" / "p%203.jpg")
    address = (tmp_path / "my photos" / "p2.jpg").as_uri()
    rows = [r"my photos\p0.jpg,a", "my%20photos/p1.jpg,b", f"{address},c"]
    rows += ["my photos/p%203.jpg,d", "~nobody/x.jpg,e", "a\0b.jpg,f"]
    (tmp_path / "c.csv").write_text("path,caption\n" + "\n".join(rows))
    assert [p.captions for p in read_captions(tmp_path / "c.csv").pictures] == [
        *(("a",), ("b",), ("c",), ("d",))
    ]
    assert [row.where for row in read_captions(tmp_path / "c.csv").skipped] == [
        "c.csv:6",
        "c.csv:7",
    ]


def test_a_caption_that_is_the_files_name_is_none(tmp_path: Path) -> None:
    file = table(tmp_path, "path,caption\np0.jpg,P0.JPG\np1.jpg,one\np2.jpg,p2\n")
    found = read_captions(file)
    assert [p.captions for p in found.pictures] == [("one",), ("p2",)]
    assert [(row.where, "only the name" in row.reason) for row in found.skipped] == [
        ("c.csv:2", True)
    ]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_members_of_a_tar_with_dots_in_their_names_find_each_other(
    tmp_path: Path, mode: str
) -> None:
    path = tmp_path / "c.tar"
    members: list[tuple[str, bytes]] = []
    for number, stem in enumerate(["v1.0", "v1.1", "img.0001.front", "a.b/c.d"]):
        members += [(f"{stem}.jpg", jpeg(number)), (f"{stem}.txt", f"about {stem}".encode())]
    members += [("7.left.jpg", jpeg(10)), ("7.right.jpg", jpeg(11)), ("7.txt", b"seven")]
    members += [("8.caption.txt", b"eight"), ("8.jpg", jpeg(12))]
    members += [("9.jpg.txt", b"nine"), ("9.jpg", jpeg(13)), ("9.png", jpeg(14))]
    members += [("far.1.jpg", jpeg(15)), ("x.txt", b"alone"), ("far.1.txt", b"far")]
    members += [("none.1.jpg", jpeg(16)), ("._none.1.jpg", b"Mac OS X")]
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    found = read_captions(path)
    captions = {p.image.name.partition(": ")[2]: p.captions[0] for p in found.pictures}
    assert captions == {
        "v1.0.jpg": "about v1.0",
        "v1.1.jpg": "about v1.1",
        "img.0001.front.jpg": "about img.0001.front",
        "a.b/c.d.jpg": "about a.b/c.d",
        "7.left.jpg": "seven",
        "7.right.jpg": "seven",
        "8.jpg": "eight",
        "9.jpg": "nine",
        "9.png": "nine",
        "far.1.jpg": "far",
    }
    assert sorted((row.where, row.reason) for row in found.skipped) == [
        ("c.tar: none.1", "it has no caption"),
        ("c.tar: x", "it has no picture"),
    ]


def test_parquet_rows_without_words_or_picture_are_listed(tmp_path: Path) -> None:
    cells = [{"bytes": data, "path": None} for _, data, _ in PICTURES]
    captions = ["['a dog', 'a pet']", None, "three", ""]
    pq.write_table(pa.table({"image": cells, "caption": captions}), tmp_path / "c.parquet")
    found = read_captions(tmp_path / "c.parquet")
    assert [p.captions for p in found.pictures] == [("a dog", "a pet"), ("three",)]
    assert [row.where for row in found.skipped] == ["c.parquet: row 2", "c.parquet: row 4"]


@pytest.mark.parametrize(
    ("captions", "is_refused"),
    [
        (["my holiday"] * 8, True),
        (["my holiday", "My holiday.", "MY  HOLIDAY!"] * 3, True),
        (["my holiday"] * 19 + ["a rose"], True),
        (["my holiday"] * 6 + ["a rose", "Rex"], False),
        (["a photo of Rex", "a photo of a cat"] * 4, False),
    ],
)
def test_captions_that_tell_no_picture_from_another_are_refused(
    captions: list[str], is_refused: bool
) -> None:
    pictures = [
        CaptionedPicture(LooseImage(str(n), b""), str(n), (text,))
        for n, text in enumerate(captions)
    ]
    if not is_refused:
        require_distinct(pictures, "c.csv")
        return
    with pytest.raises(CaptionFileError, match=r"share one caption, 'my holiday'"):
        require_distinct(pictures, "c.csv")


def test_training_on_one_caption_ends_before_a_model_is_loaded(tmp_path: Path) -> None:
    from training.run import Options, gather

    file = table(tmp_path, "path,caption\n" + "".join(f"p{n}.jpg,my holiday\n" for n in range(4)))
    with pytest.raises(CaptionFileError, match="all 4 pictures share one caption"):
        gather(CaptionSource((file,)), Options(), lambda _: None)
