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
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from clipsearch.cli import main
from clipsearch.copies import nearness
from clipsearch.duplicates import copy_groups, find_duplicates, tell_apart
from clipsearch.errors import NotInLibraryError, UsageError
from clipsearch.hashing import hash_content
from clipsearch.images.closeup import Closeups, closeup
from clipsearch.library import Batch, FileState, Library, NewItem
from clipsearch.near_pairs import near_pairs
from clipsearch.searcher import Searcher
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

    def copy(self, name: str, to: str, sidecars: str = "") -> None:
        """The same bytes at another place."""
        shutil.copyfile(self.folder / name, self.folder / to)
        data = (self.folder / to).read_bytes()
        state = FileState(self.root, to, len(data), 1, 2, hash_content(data), sidecars=sidecars)
        with self.library.writer() as writer:
            writer.commit(Batch(files=[state]))

    def tiers(self) -> dict[str, list[set[int]]]:
        """The items of each group, by tier."""
        found: dict[str, list[set[int]]] = {}
        for group in find_duplicates(self.library):
            items = {shot.item for shot in (group.best, *group.others)}
            found.setdefault(group.tier, []).append(items)
        return found

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


def invoice(number: int, total: str, width: int = 700) -> Image.Image:
    page = Image.new("RGB", (width, round(width * 1.4)), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(width / 40)
    draw.text((60, 40), f"Invoice {number}   total {total}", "black", font)
    for line in range(20):
        text = f"line of the form {line}   Name Address City"
        draw.text((60, 100 + line * width / 20), text, "black", font)
    return page


def paths_of(shelf: Shelf, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[set[str], str]:
    """The names that ``dupes --paths`` prints, and what it says beside them."""
    capsys.readouterr()
    assert main(["dupes", "--paths", "-0", *flags, "--library", str(shelf.library.path)]) == 0
    said = capsys.readouterr()
    return {Path(path).name for path in said.out.split("\0") if path}, said.err


def test_two_invoices_are_never_the_same_and_a_version_of_one_is(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    at = np.ones(DIM)
    first = shelf.add("1001.png", invoice(1001, "10.00"), at)
    second = shelf.add("1002.png", invoice(1002, "99.99"), shelf.near(at))
    third = shelf.add("1003.png", invoice(1003, "10.00"), shelf.near(at))
    version = shelf.add("1001 sent.jpg", invoice(1001, "10.00"), shelf.near(at))
    thumbnail = invoice(1002, "99.99")
    small = shelf.add("small.png", thumbnail.resize((175, 245)), shelf.near(at))
    tiers = shelf.tiers()
    assert tiers["same"] == [{first, version}]
    assert {second, third, small} <= set().union(*tiers["alike"])
    names, said = paths_of(shelf, capsys)
    assert len(names) == 1 and names <= {"1001.png", "1001 sent.jpg"}
    assert "the text of the other cannot be read" in said
    searcher = Searcher(shelf.library)
    shown = {hit.item for hit in searcher.search("type:picture duplicate:no", top=50)}
    assert {second, third} <= shown
    assert len({first, version} & shown) == 1


def test_what_is_known_of_a_copy_decides_which_to_keep_and_an_enlargement_never_wins(
    shelf: Shelf, cat: Image.Image, capsys: pytest.CaptureFixture[str]
) -> None:
    at, camera = np.ones(DIM), {"make": "Apple", "latitude": 10.0, "longitude": 20.0}
    original = shelf.add("cat.png", cat, at, taken_at="2020-01-02T03:04:05", **camera)
    enlarged = cat.resize((2 * cat.width, 2 * cat.height), Image.Resampling.BICUBIC)
    shelf.add("cat by an app.jpg", enlarged, shelf.near(at))
    small = cat.resize((cat.width // 2, cat.height // 2))
    said = shelf.add("small.png", small, shelf.near(at))
    with shelf.library.writer() as writer:
        writer.tags.add_by_hand([said], "Mia")
    (group,) = (g for g in find_duplicates(shelf.library) if g.tier == "same")
    assert group.best.item == said, "what a person said of it counts most"
    with shelf.library.writer() as writer:
        writer.tags.remove_by_hand([said], "Mia")
        writer.tags.add_by_hand([original], "Mia")
    (group,) = (g for g in find_duplicates(shelf.library) if g.tier == "same")
    assert group.best.item == original
    for reason in ("the camera", "the date", "the place", "Mia", "original of an enlargement"):
        assert reason in group.why
    assert paths_of(shelf, capsys)[0] == {"cat by an app.jpg", "small.png"}


def test_an_original_that_looks_like_an_enlargement_is_not_given_to_scripts(
    shelf: Shelf, cat: Image.Image, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing but its softness tells, and a photo may be soft."""
    at = np.ones(DIM)
    small = shelf.add("small.png", cat, at)
    soft = shelf.add(
        "soft.png",
        cat.resize((2 * cat.width, 2 * cat.height), Image.Resampling.BICUBIC),
        shelf.near(at),
    )
    (group,) = (g for g in find_duplicates(shelf.library) if g.tier == "same")
    assert {group.best.item, group.others[0].item} == {small, soft}
    assert group.others[0].only_here == ("more pixels, unless it is an enlargement",)
    assert paths_of(shelf, capsys)[0] == set()


def test_a_copy_with_something_of_its_own_is_not_given_to_scripts(
    shelf: Shelf, cat: Image.Image, capsys: pytest.CaptureFixture[str]
) -> None:
    at = np.ones(DIM)
    shelf.add("large.png", cat, at)
    half = cat.resize((cat.width // 2, cat.height // 2))
    shelf.add("dated.png", half, shelf.near(at), taken_at="2020-01-02T03:04:05")
    shelf.add("plain.jpg", half, shelf.near(at))
    names, said = paths_of(shelf, capsys)
    assert names == {"plain.jpg"}
    assert "more pixels" in said and "large.png" in said
    main(["dupes", "--json", "--library", str(shelf.library.path)])
    group = json.loads(capsys.readouterr().out.splitlines()[0])
    assert "the date" in group["why"]
    assert [shot["only_here"] for shot in group["others"]] == [["more pixels"], []]


def test_shots_at_two_times_a_raw_file_and_its_picture_are_no_versions(
    shelf: Shelf, cat: Image.Image
) -> None:
    at, days = np.ones(DIM), "2024-05-01T10:00:0"
    one = shelf.add("tripod 1.png", cat, at, taken_at=days + "1")
    other = shelf.add("tripod 2.jpg", cat, shelf.near(at), taken_at=days + "4")
    assert shelf.tiers() == {"burst": [{one, other}]}
    abroad = shelf.add("clock abroad.webp", cat, shelf.near(at), taken_at="2024-05-01T12:00:01")
    assert shelf.tiers()["same"] == [{one, abroad}]
    raw = shelf.library.items([abroad])[abroad]
    with shelf.library.writer() as writer:
        item = NewItem("e" * 32, raw.width, raw.height, "DNG", 10**6)
        thumb = shelf.library.path / "thumbs" / "ee" / f"{'e' * 32}.jpg"
        thumb.parent.mkdir(parents=True)
        cat.save(thumb)
        (shelf.folder / "raw.dng").write_bytes(b"raw")
        state = FileState(shelf.root, "raw.dng", 3, 1, 1, "e" * 32)
        rows = unit_rows(np.asarray(at, dtype=np.float32)[None])
        writer.commit(Batch([item], (SPACE.id, ["e" * 32], rows), [state]))
    assert shelf.tiers()["same"] == [{one, abroad}]


def test_a_script_is_given_nothing_whose_original_is_gone_or_changed(
    shelf: Shelf, cat: Image.Image, capsys: pytest.CaptureFixture[str]
) -> None:
    at = np.ones(DIM)
    shelf.add("cat.png", cat, at)
    shelf.add("small.png", cat.resize((cat.width // 2, cat.height // 2)), shelf.near(at))
    shelf.copy("small.png", "small again.png")
    assert paths_of(shelf, capsys)[0] == {"small.png", "small again.png"}
    (shelf.folder / "small again.png").write_bytes(b"something else by now")
    names, said = paths_of(shelf, capsys)
    assert names == {"small.png"} and "small again.png" in said
    (shelf.folder / "cat.png").rename(shelf.folder / "away.png")
    names, said = paths_of(shelf, capsys)
    assert names == set() and "the file to keep is not there" in said


def test_files_that_cannot_be_looked_at_now_are_look_alikes_until_they_can(
    shelf: Shelf, cat: Image.Image, capsys: pytest.CaptureFixture[str]
) -> None:
    at = np.ones(DIM)
    original = shelf.add("cat.png", cat, at)
    small = shelf.add("small.png", cat.resize((cat.width // 2, cat.height // 2)), shelf.near(at))
    for item in (original, small):
        content = shelf.library.items([item])[item].content_hash
        thumb = shelf.library.path / "thumbs" / content[:2] / f"{content}.jpg"
        thumb.parent.mkdir(parents=True, exist_ok=True)
        cat.save(thumb)
    (shelf.folder / "cat.png").rename(shelf.folder / "offline.png")
    names, said = paths_of(shelf, capsys)
    assert names == set() and "could not be looked at closely" in said and "cat.png" in said
    assert shelf.tiers() == {"alike": [{original, small}]}
    (shelf.folder / "offline.png").rename(shelf.folder / "cat.png")
    assert shelf.tiers() == {"same": [{original, small}]}


def test_of_identical_files_the_one_with_a_sidecar_is_kept_and_a_link_is_no_copy(
    shelf: Shelf, cat: Image.Image, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf.add("a.png", cat, np.ones(DIM))
    shelf.copy("a.png", "with words.png", sidecars="with words.xmp 5 1")
    shelf.copy("a.png", "with other words.png", sidecars="with other words.xmp 5 1")
    (shelf.folder / "link.png").hardlink_to(shelf.folder / "a.png")
    data = (shelf.folder / "a.png").read_bytes()
    with shelf.library.writer() as writer:
        link = FileState(shelf.root, "link.png", len(data), 1, 3, hash_content(data))
        writer.commit(Batch(files=[link]))
    (group,) = find_duplicates(shelf.library, tiers=["identical"])
    assert group.best.paths == (shelf.folder / "with words.png",)
    assert [shot.paths for shot in group.others] == [
        (shelf.folder / "a.png",),
        (shelf.folder / "with other words.png",),
    ]
    names, said = paths_of(shelf, capsys)
    assert names == {"a.png"} and "a sidecar of its own" in said
