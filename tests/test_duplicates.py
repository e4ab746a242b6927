"""Duplicates: the right tier for every kind, nothing taken for what it is not, nothing deleted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import xxhash
from PIL import Image, ImageEnhance

from clipsearch.cli import main
from clipsearch.copies import nearness
from clipsearch.duplicates import copy_groups, find_duplicates, tell_apart
from clipsearch.errors import NotInLibraryError, UsageError
from clipsearch.images.closeup import Closeups, closeup
from clipsearch.library import Batch, FileState, Library, NewItem
from clipsearch.near_pairs import near_pairs
from clipsearch.stars import stars
from clipsearch.vectors import EmbeddingSpace, unit_rows

DIM = 64
SPACE = EmbeddingSpace("model", "weights", "preprocess", DIM)


def brute_force(rows: np.ndarray, threshold: float) -> set[tuple[int, int]]:
    cosines = np.triu(rows @ rows.T, 1)
    return {(int(i), int(j)) for i, j in zip(*np.nonzero(cosines >= threshold), strict=True)}


@pytest.mark.parametrize("count", [0, 1, 2, 700, 2500])
def test_near_pairs_are_exactly_those_of_brute_force(count: int) -> None:
    random = np.random.default_rng(count)
    centres = random.standard_normal((40, DIM))
    noise = random.standard_normal((count, DIM))
    rows = unit_rows((centres[random.integers(0, 40, count)] + 0.5 * noise).astype(np.float32))
    found = near_pairs(rows, 0.8)
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert pairs == brute_force(rows, 0.8)
    assert len(found.first) == len(pairs)
    since = count // 2
    later = near_pairs(rows, 0.8, since=since)
    new = set(zip(later.first.tolist(), later.second.tolist(), strict=True))
    assert new == {pair for pair in pairs if pair[1] >= since}


def test_too_many_pairs_keep_the_nearest_and_say_from_where_on() -> None:
    random = np.random.default_rng(1)
    rows = unit_rows((1 + 0.3 * random.standard_normal((300, DIM))).astype(np.float32))
    found = near_pairs(rows, 0.5, limit=1000)
    assert 0 < len(found.first) <= 1000
    assert found.threshold > 0.5
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert pairs <= brute_force(rows, found.threshold - 1e-6)


def test_a_chain_is_no_group_and_what_was_told_apart_is_never_together() -> None:
    chain = np.array([[1, 2], [2, 3], [3, 4]])
    assert stars(chain, lambda item: (-item,), set()) == [[1, 2], [3, 4]]
    star = np.array([[1, 2], [1, 3], [1, 4]])
    assert stars(star, lambda item: (-item,), set()) == [[1, 2, 3, 4]]
    assert stars(star, lambda item: (-item,), {(2, 3), (1, 4)}) == [[1, 2]]


def test_what_is_near_follows_from_the_model() -> None:
    random = np.random.default_rng(2)
    wide = random.standard_normal((500, DIM)).astype(np.float32)
    narrow = wide + 6  # a model whose pictures all lie in one direction
    assert nearness(unit_rows(narrow)).alike > nearness(unit_rows(wide)).alike > 0.5
    for rows in (wide, narrow):
        bounds = nearness(unit_rows(rows))
        assert bounds.near < bounds.alike
        assert len(near_pairs(unit_rows(rows), bounds.near).first) < 50  # all are different


def same(one: Image.Image, other: Image.Image) -> bool:
    aspects = np.array([image.width / image.height for image in (one, other)])
    looks = Closeups([closeup(one.convert("RGB")), closeup(other.convert("RGB"))], aspects)
    return bool(looks.same(np.array([0]), np.array([1]))[0])


def test_versions_are_the_same_and_other_photos_of_the_scene_are_not(
    real_photos: Path, tmp_path: Path
) -> None:
    photos = [Image.open(path).convert("RGB") for path in sorted(real_photos.glob("*.[pj]*g"))[:8]]
    assert len(photos) == 8
    for photo in photos:
        photo.save(tmp_path / "small.jpg", quality=50)
        width, height = photo.size
        assert same(photo, Image.open(tmp_path / "small.jpg"))
        assert same(photo, photo.resize((width // 2, height // 2)))
        assert same(photo, ImageEnhance.Brightness(photo).enhance(1.15))
        margin = width // 25
        assert not same(photo, photo.crop((margin, 0, width, height)).resize(photo.size))
        assert not same(photo, photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
        moved = photo.copy()  # somebody walks in
        box = (width // 2, height // 2, width // 2 + width // 5, height // 2 + height // 5)
        moved.paste((250, 20, 20), box)
        assert not same(photo, moved)
    for one, other in pairwise(photos):
        assert not same(one, other)


class Shelf:
    """A library made by hand: pictures with vectors that say how near they are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "photos"
        self.folder.mkdir()
        self.library = Library.open(folder / "test.clipsearch", create=True)
        with self.library.writer() as writer:
            self.root = writer.add_root(self.folder).id
            writer.add_space(SPACE, address="model", runtime="torch", precision="f32")
            writer.activate_space(SPACE.id)
        self._random = np.random.default_rng(3)
        self._far = [self._random.standard_normal(DIM) for _ in range(30)]
        items = [NewItem(f"{number:032x}", 40, 30, "PNG", 99) for number in range(30)]
        names = [item.content_hash for item in items]
        states = [FileState(self.root, f"other/{name}.png", 99, 1, 1, name) for name in names]
        rows = unit_rows(np.array(self._far, dtype=np.float32))  # what else there is
        with self.library.writer() as writer:
            writer.commit(Batch(items, (SPACE.id, names, rows), states))

    def add(
        self,
        name: str,
        image: Image.Image,
        vector: np.ndarray,
        *,
        taken_at: str | None = None,
        **metadata: object,
    ) -> int:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        image.save(path)
        data = path.read_bytes()
        content = xxhash.xxh3_128_hexdigest(data)
        item = NewItem(
            content, *image.size, path.suffix[1:].upper(), len(data), taken_at, dict(metadata)
        )
        state = FileState(self.root, name, len(data), 1, 1, content)
        rows = unit_rows(np.asarray(vector, dtype=np.float32)[None])
        with self.library.writer() as writer:
            writer.commit(Batch([item], (SPACE.id, [content], rows), [state]))
        return self.library.item_by_hash([content])[content]

    def near(self, vector: np.ndarray, noise: float = 0.05) -> np.ndarray:
        moved: np.ndarray = vector + noise * self._random.standard_normal(DIM)
        return moved


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    made = Shelf(tmp_path)
    with made.library:
        yield made


@pytest.fixture
def cat(real_photos: Path) -> Image.Image:
    return Image.open(real_photos / "cat.png").convert("RGB")


def shaken(image: Image.Image, pixels: int) -> Image.Image:
    """The next shot of a burst: the camera moved a little."""
    width, height = image.size
    moved: Image.Image = image.crop((pixels, pixels, width, height)).resize(image.size)
    return moved


def test_every_kind_is_found_in_its_own_tier_with_the_best_first(
    shelf: Shelf, cat: Image.Image
) -> None:
    at = np.ones(DIM)
    original = shelf.add("cat.png", cat, at, taken_at="2024-05-01T10:00:00")
    half = cat.resize((cat.width // 2, cat.height // 2))
    small = shelf.add("small.png", half, shelf.near(at))
    starred = shelf.add(
        "shot2.png", shaken(cat, 30), shelf.near(at), taken_at="2024-05-01T10:00:04", rating=5
    )
    mirrored = cat.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    other_day = shelf.add("mirror.png", mirrored, shelf.near(at), taken_at="2024-06-01T10:00:00")
    shutil.copyfile(shelf.folder / "cat.png", shelf.folder / "a copy of cat.png")
    content = shelf.library.items([original])[original].content_hash
    size = (shelf.folder / "cat.png").stat().st_size
    with shelf.library.writer() as writer:
        copy = FileState(shelf.root, "a copy of cat.png", size, 1, 2, content)
        writer.commit(Batch(files=[copy]))
    before = sorted(shelf.folder.rglob("*"))
    groups = find_duplicates(shelf.library)
    shown = [(g.tier, g.best.item, [shot.item for shot in g.others]) for g in groups]
    assert shown == [
        ("identical", original, [original]),
        ("same", original, [small]),
        ("burst", starred, [original]),
        ("alike", starred, [other_day]),
    ]
    assert groups[0].others[0].paths == (shelf.folder / "a copy of cat.png",)
    assert groups[2].best.rating == 5
    assert sorted(shelf.folder.rglob("*")) == before
    assert find_duplicates(shelf.library, tiers=["same"])[0].best.item == original
    nearer_in_time = find_duplicates(shelf.library, tiers=["burst"], burst_s=3)
    assert nearer_in_time == []


def test_copies_are_remembered_followed_and_told_apart(shelf: Shelf, cat: Image.Image) -> None:
    at = np.ones(DIM)
    original = shelf.add("cat.png", cat, at)
    half = shelf.add("half.png", cat.resize((cat.width // 2, cat.height // 2)), shelf.near(at))
    everything = shelf.library.present_items()

    def sets() -> list[set[int]]:
        numbers = copy_groups(shelf.library, SPACE.id, everything)
        found: dict[int, set[int]] = {}
        for item, number in zip(everything.tolist(), numbers.tolist(), strict=True):
            found.setdefault(number, set()).add(item)
        return [items for items in found.values() if len(items) > 1]

    assert sets() == [{original, half}]
    third = shelf.add("third.png", cat.resize((cat.width // 3, cat.height // 3)), shelf.near(at))
    everything = shelf.library.present_items()
    assert sets() == [{original, half, third}]
    for cache in (shelf.library.path / "index").glob("*.npz"):
        cache.write_bytes(cache.read_bytes()[:-40] + b"\0" * 40)  # damaged: it is only a cache
    assert sets() == [{original, half, third}]
    tell_apart(shelf.library, half, original)
    assert sets() == [{original, third}]
    shutil.rmtree(shelf.library.path / "index")
    assert sets() == [{original, third}]
    with pytest.raises(NotInLibraryError):
        tell_apart(shelf.library, half, 10**6)
    with pytest.raises(UsageError):
        tell_apart(shelf.library, half, half)


def test_the_command_prints_groups_paths_for_scripts_and_remembers(
    shelf: Shelf, cat: Image.Image, capsys: pytest.CaptureFixture[str]
) -> None:
    at = np.ones(DIM)
    original = shelf.add("cat.png", cat, at)
    small = shelf.add("small cat.png", cat.resize((cat.width // 2, cat.height // 2)), at)

    def run(*arguments: str | Path) -> str:
        assert main(["dupes", *map(str, arguments), "--library", str(shelf.library.path)]) == 0
        return capsys.readouterr().out

    assert "the same picture" in run()
    (line,) = run("--json").splitlines()
    group = json.loads(line)
    assert (group["tier"], group["best"]["item"]) == ("same", original)
    assert run("--paths", "-0") == f"{shelf.folder / 'small cat.png'}\0"
    assert run("--tier", "identical", "--tier", "burst") == ""
    run("--not", shelf.folder / "cat.png", f"#{small}")
    assert run("--paths") == ""


@pytest.mark.parametrize("flags", [["--within", "-1"], ["--similar", "2"], ["--tier", "twins"]])
def test_values_that_cannot_be_used_are_wrong_usage(shelf: Shelf, flags: list[str]) -> None:
    assert main(["dupes", *flags, "--library", str(shelf.library.path)]) == 2
