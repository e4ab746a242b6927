"""Tags: what fits is given, what a person decided stays, and a run does no more than it has to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from word_encoder import WordEncoder, add_pictures, library_of

import clipsearch
from clipsearch.config import Settings, resolve
from clipsearch.errors import TaggingError, UsageError
from clipsearch.library import Batch, Library
from clipsearch.relevance import Scale
from clipsearch.tagging.assigning import Cutoffs, Tagger
from clipsearch.tagging.learning import (
    AT_CUTOFF,
    PRIOR_WIDTH,
    learned_cutoff,
)
from clipsearch.tagging.prototypes import Prototypes
from clipsearch.tagging.review import Review, open_review
from clipsearch.tagging.run import tag_again
from clipsearch.tagging.vocabulary import Vocabulary, parse_vocabulary
from clipsearch.vectors import unit_rows

WORDS = """\
one of: indoors, outdoors
animal
    pet
        dog | hound
        cat
car
zeppelin
place:
    kitchen
    meadow
indoors
outdoors
"""
SHOWN = {
    **{f"dog{n}.jpg": f"dog meadow outdoors thing{n}" for n in range(12)},
    **{f"cat{n}.jpg": f"cat kitchen indoors thing{n}" for n in range(12)},
    **{f"car{n}.jpg": f"car street{n} outdoors thing{n}" for n in range(12)},
    **{f"other{n}.jpg": f"noise{n} more{n} else{n} outdoors" for n in range(24)},
}


def vocabulary(text: str = WORDS, name: str = "mine") -> Vocabulary:
    return parse_vocabulary(text, name=name, path=Path(f"{name}.txt"))


@pytest.fixture
def encoder() -> WordEncoder:
    return WordEncoder()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return resolve({"cache_dir": tmp_path / "cache"})


@pytest.fixture
def library(tmp_path: Path, encoder: WordEncoder) -> Iterator[Library]:
    (tmp_path / "photos").mkdir()
    with library_of(tmp_path / "t.clipsearch", tmp_path / "photos", SHOWN, encoder) as opened:
        yield opened


def tags_by_name(library: Library, source: str = "model") -> dict[str, set[str]]:
    items = {item: paths[0].name for item, paths in library.paths(range(1, 200)).items()}
    found: dict[str, set[str]] = {name: set() for name in items.values()}
    for tag in library.tags.of_items(list(items)):
        if tag.source == source:
            found[items[tag.item]].add(tag.name)
    return found


def item_of(library: Library, name: str) -> int:
    (item,) = library.tags.items_at(library.roots()[0].path / name)
    return item


def test_pictures_get_what_they_show_and_what_that_implies(
    library: Library, encoder: WordEncoder, settings: Settings
) -> None:
    report = clipsearch.tag(library, vocabulary(), encoder=encoder, settings=settings)
    assert (report.items, report.known, report.concepts) == (60, 0, 10)
    tags = tags_by_name(library)
    expected = {
        "dog": {"dog", "pet", "animal", "meadow", "outdoors"},
        "cat": {"cat", "pet", "animal", "kitchen", "indoors"},
        "car": {"car", "outdoors"},
    }
    # A neutral text that names kitchens fits those pictures better, so what is second there is not
    # tagged: NEUTRAL_ABOVE. One cat stays below the cut-off, and with it what a cat implies.
    wholes = {"dog": 12, "cat": 11, "car": 12}
    for shown, everything in expected.items():
        given = [tags[f"{shown}{n}.jpg"] for n in range(12)]
        assert all(each <= everything for each in given)  # nothing wrong
        assert given.count(everything - {"kitchen"}) == wholes[shown]
        assert all(everything & {"indoors", "outdoors"} <= each for each in given)
    assert all("zeppelin" not in given for given in tags.values())  # nobody shows one
    assert report.tags == sum(map(len, tags.values()))
    counts = {tag.name: (tag.user, tag.model) for tag in library.tags.counts()}
    assert counts["pet"] == (0, sum("pet" in given for given in tags.values()))


def test_a_second_run_looks_at_new_pictures_only_until_something_changes(
    library: Library, encoder: WordEncoder, settings: Settings
) -> None:
    def run(text: str = WORDS, **options: object) -> tuple[int, int]:
        words = vocabulary(text)
        report = clipsearch.tag(library, words, encoder=encoder, settings=settings, **options)
        return report.items, report.known

    assert run() == (60, 0)
    before = tags_by_name(library)
    assert run() == (0, 60)
    add_pictures(library, {"new.jpg": "dog meadow outdoors new"}, encoder)
    assert run(dry_run=True) == (1, 60)
    assert "new.jpg" in tags_by_name(library)
    assert tags_by_name(library)["new.jpg"] == set()  # a dry run writes nothing
    assert run() == (1, 60)
    assert "dog" in tags_by_name(library)["new.jpg"]
    assert run(again=True) == (61, 0)
    assert {k: v for k, v in tags_by_name(library).items() if k != "new.jpg"} == before
    assert run(WORDS + "street\n") == (61, 0)  # another vocabulary
    assert run(WORDS + "street\n", top_tags=3) == (61, 0)
    more = {f"more{n}.jpg": f"car more{n}" for n in range(20)}
    add_pictures(library, more, encoder)
    assert run(WORDS + "street\n", top_tags=3) == (81, 0)  # grown by a quarter


def test_a_run_replaces_its_own_vocabulary_and_nothing_else(
    library: Library, encoder: WordEncoder, settings: Settings
) -> None:
    dog = item_of(library, "dog0.jpg")
    with library.writer() as writer:
        writer.tags.add_by_hand([dog], "Dog")  # case does not matter
        writer.tags.add_by_hand([dog], "holiday")
    clipsearch.tag(library, vocabulary(), encoder=encoder, settings=settings)
    assert "dog" not in tags_by_name(library)["dog0.jpg"]
    assert tags_by_name(library, "user")["dog0.jpg"] == {"Dog", "holiday"}
    other = vocabulary("car\nmeadow\n", "other")
    clipsearch.tag(library, other, encoder=encoder, settings=settings)
    clipsearch.tag(library, vocabulary("cat"), encoder=encoder, settings=settings)
    origins = {(tag.origin, tag.name) for tag in library.tags.given_by_model("mine")}
    assert origins == {("mine", "cat")}
    assert {tag.name for tag in library.tags.given_by_model("other")} == {"car", "meadow"}
    with library.writer() as writer:
        assert writer.tags.clear("other") == 24
    assert library.tags.given_by_model("other") == []
    assert tags_by_name(library, "user")["dog0.jpg"] == {"Dog", "holiday"}


def test_an_interrupted_run_goes_on_where_it_was(
    library: Library, encoder: WordEncoder, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipsearch.tagging.run._BLOCK", 25)
    stops = iter((False, True))
    report = clipsearch.tag(
        library,
        vocabulary(),
        encoder=encoder,
        settings=settings,
        should_stop=lambda: next(stops),
    )
    assert report.interrupted
    assert report.items == 50
    rest = clipsearch.tag(library, vocabulary(), encoder=encoder, settings=settings)
    assert (rest.items, rest.known) == (10, 50)
    in_pieces = tags_by_name(library)
    clipsearch.tag(library, vocabulary(), encoder=encoder, settings=settings, again=True)
    assert tags_by_name(library) == in_pieces


def test_an_answer_moves_the_cutoff_at_once_and_is_kept(
    library: Library, encoder: WordEncoder, settings: Settings
) -> None:
    clipsearch.tag(library, vocabulary(), encoder=encoder, settings=settings)
    review = Review(library, "mine", encoder=encoder, settings=settings)
    queue = review.queue("dog", 60)
    distances = [abs(doubt.score - doubt.cutoff) for doubt in queue]
    assert distances == sorted(distances)  # unsure first
    assert {doubt.given for doubt in queue} == {True, False}
    before = queue[0].cutoff
    last = before
    for n in range(6):
        cutoff = review.reject(item_of(library, f"dog{n}.jpg"), "hound")
        assert cutoff > last
        last = cutoff
    tags = tags_by_name(library)
    assert all("dog" not in tags[f"dog{n}.jpg"] for n in range(6))
    assert "meadow" in tags["dog0.jpg"]  # the rest stays
    scores = {d.item: d.score for d in queue}
    for n in range(6, 12):  # the others by the new cut-off
        item = item_of(library, f"dog{n}.jpg")
        assert ("dog" in tags[f"dog{n}.jpg"]) == (scores[item] >= last)
    assert item_of(library, "dog0.jpg") not in {d.item for d in review.queue("dog", 60)}
    # A later run, also of everything, keeps to it.
    clipsearch.tag(library, vocabulary(), encoder=encoder, settings=settings, again=True)
    assert tags_by_name(library) == tags
    assert library.tags.cutoffs(encoder.space.id)["dog"] == pytest.approx(last)
    for n in range(6):
        review.undo(item_of(library, f"dog{n}.jpg"), "dog")
    assert library.tags.cutoffs(encoder.space.id) == {}
    assert library.tags.answers() == []
    assert "dog" in tags_by_name(library)["dog0.jpg"]


def test_the_first_answers_move_a_cutoff_little_and_many_decide_it() -> None:
    calibrated, slope = 0.25, 15.3
    crowd = calibrated + np.linspace(-0.03, 0.05, 80)  # of a tag on a hundred photos, 50 above

    def changed(*said: tuple[float, float]) -> int:
        cutoff = learned_cutoff(np.array(said), slope, calibrated)
        return int(((crowd >= cutoff) != (crowd >= calibrated)).sum())

    assert changed((calibrated, -1)) <= 3  # most of what is asked there does not fit: no news
    assert changed((calibrated, 1)) <= 8
    rng = np.random.default_rng(5)
    for count in range(1, 60):  # never further than so many answers could mean, whatever they say
        said = [(calibrated + rng.normal() / slope, rng.choice([-1, 1])) for _ in range(count)]
        moved = abs(learned_cutoff(np.array(said), slope, calibrated) - calibrated) * slope
        assert moved <= count * PRIOR_WIDTH**2
    every = [calibrated + n / 400 for n in range(20)]
    assert changed(*[(score, -1) for score in every]) > 15
    assert changed(*[(score, 1) for score in every]) > 15


@pytest.mark.parametrize("right", [0.35, 0.3, 0.25, 0.2, 0.15])
def test_answers_lower_no_tag_by_much_and_mend_a_cutoff_that_is_too_high(right: float) -> None:
    """Made-up tags, whose cut-off would be ``right``; benchmarks/review.py has real ones."""
    calibrated, slope = 0.25, 15.3
    change: dict[int, list[float]] = {1: [], 2: [], 3: [], 5: [], 10: [], 20: []}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        score = rng.normal(0.15, 0.09, 600)
        fits = rng.random(600) < 1 / (1 + np.exp(1 - slope * (score - right)))
        asked = np.argsort(abs(score - calibrated))[:20]
        for count, found in change.items():
            said = np.stack([score, np.where(fits, 1.0, -1.0)], axis=1)[asked[:count]]
            others = np.delete(np.arange(600), asked[:count])
            after = learned_cutoff(said, slope, calibrated)
            before, now = ((score[others] >= cutoff) for cutoff in (calibrated, after))
            found.append(f1(now, fits[others]) - f1(before, fits[others]))
    for count, found in change.items():
        assert min(found) > -0.09
        assert np.mean(found) > (0.05 if right == 0.15 and count >= 5 else -0.005)


def f1(held: NDArray[np.bool_], fits: NDArray[np.bool_]) -> float:
    return float(2 * (held & fits).sum() / (held.sum() + fits.sum()))


def test_the_probability_that_is_said_belongs_to_the_cutoff(
    library: Library, encoder: WordEncoder, settings: Settings
) -> None:
    clipsearch.tag(library, vocabulary(), encoder=encoder, settings=settings)
    review = Review(library, "mine", encoder=encoder, settings=settings)
    queue = review.queue("dog", 60)
    at_cutoff = 1 / (1 + np.exp(-AT_CUTOFF))
    assert {doubt.probability >= at_cutoff for doubt in queue} == {True, False}
    assert all((d.probability >= at_cutoff) == (d.score >= d.cutoff) for d in queue)
    review.reject(queue[0].item, "dog")
    now = review.current(queue[1])
    assert now == next(d for d in review.queue("dog", 60) if d.item == queue[1].item)
    assert now.cutoff > queue[1].cutoff
    assert now.probability < queue[1].probability


def test_undo_gives_back_what_was_there_before_the_answer(
    library: Library, encoder: WordEncoder, settings: Settings
) -> None:
    other = vocabulary("dog\ncar\n", "other")
    for words in (vocabulary(), other):
        clipsearch.tag(library, words, encoder=encoder, settings=settings)
    dog, cat = item_of(library, "dog0.jpg"), item_of(library, "cat0.jpg")
    with library.writer() as writer:
        writer.tags.add_by_hand([cat], "dog")

    def everything() -> list[tuple[object, ...]]:
        return [tag[:4] for tag in library.tags.of_items(range(1, 61))]  # all but rounding

    before = everything()
    review = Review(library, "mine", encoder=encoder, settings=settings)
    for item in (dog, cat):
        for answers in ((review.accept,), (review.reject,), (review.accept, review.reject)):
            for answer in answers:
                answer(item, "dog")
            assert (item, "dog", "user", "hand") in everything() or answer == review.reject
            review.undo(item, "dog")
            assert everything() == before
            assert library.tags.cutoffs(encoder.space.id) == {}
    review.accept(cat, "dog")
    with library.writer() as writer:
        writer.tags.remove_by_hand([cat], "dog")  # said after the answer: so it stays away
    review.undo(cat, "dog")
    assert "dog" not in tags_by_name(library, "user")["cat0.jpg"]


def test_a_review_asks_about_the_vocabulary_that_was_used_last(
    library: Library, encoder: WordEncoder, settings: Settings
) -> None:
    def asked(name: str | None = None, tag: str | None = None) -> str:
        return open_review(library, name, tag, encoder=encoder, settings=settings).vocabulary

    def run(text: str, name: str, **options: Any) -> None:
        words = vocabulary(text, name)
        clipsearch.tag(library, words, encoder=encoder, settings=settings, **options)

    with pytest.raises(TaggingError, match=r"not been tagged yet.* clipsearch tag"):
        asked()
    run(WORDS, "mine")
    assert asked() == "mine"
    run("car\nstreet\n", "a")
    assert asked() == "a"
    assert (asked(tag="dog"), asked(tag="car"), asked(tag="nothing")) == ("mine", "a", "a")
    assert (asked("mine"), asked("~/words/mine.txt"), asked("mine", "car")) == ("mine",) * 3
    with pytest.raises(TaggingError, match="'b', but by a, mine"):
        asked("b")
    run(WORDS, "mine", dry_run=True)
    assert asked() == "a"
    run(WORDS, "mine")  # nothing is new, but it was used
    assert asked() == "mine"
    tag_again(library, settings=settings)
    assert asked() == "mine"
    with library.writer() as writer:
        writer.tags.clear("mine")
    assert asked() == "a"


def test_a_new_calibration_takes_all_answers_into_account(
    library: Library, encoder: WordEncoder, settings: Settings
) -> None:
    clipsearch.tag(library, vocabulary(), encoder=encoder, settings=settings)
    review = Review(library, "mine", encoder=encoder, settings=settings)
    learned = review.reject(item_of(library, "dog0.jpg"), "dog")
    with library.writer() as writer:  # as another calibration, or another prior, left it
        writer.tags.set_cutoff(encoder.space.id, "dog", 0.9)
    clipsearch.tag(library, vocabulary(), encoder=encoder, settings=settings, again=True)
    assert library.tags.cutoffs(encoder.space.id) == {"dog": pytest.approx(learned)}


def test_an_accepted_tag_is_the_owners_and_outlives_every_run(
    library: Library, encoder: WordEncoder, settings: Settings
) -> None:
    clipsearch.tag(library, vocabulary(), encoder=encoder, settings=settings)
    review = Review(library, "mine", encoder=encoder, settings=settings)
    noise = item_of(library, "other0.jpg")
    low = next(d for d in review.queue("zeppelin", 60) if d.item == noise)
    assert review.accept(noise, "zeppelin") < low.cutoff
    assert tags_by_name(library, "user")["other0.jpg"] == {"zeppelin"}
    clipsearch.tag(library, vocabulary("cat"), encoder=encoder, settings=settings)
    assert tags_by_name(library, "user")["other0.jpg"] == {"zeppelin"}
    (answer,) = library.tags.answers("zeppelin")
    assert (answer.item, answer.accepted) == (noise, True)


def test_a_review_says_what_is_missing(
    library: Library, encoder: WordEncoder, settings: Settings
) -> None:
    with pytest.raises(TaggingError, match="clipsearch tag --vocabulary mine"):
        Review(library, "mine", encoder=encoder, settings=settings)
    clipsearch.tag(library, vocabulary(), encoder=encoder, settings=settings)
    review = Review(library, "mine", encoder=encoder, settings=settings)
    with pytest.raises(TaggingError, match="Did you mean 'kitchen'"):
        review.queue("kitchn")
    with pytest.raises(UsageError):
        clipsearch.tag(library, vocabulary(), top_tags=0, encoder=encoder, settings=settings)


def test_cutoffs_belong_to_one_model(
    library: Library, encoder: WordEncoder, settings: Settings
) -> None:
    clipsearch.tag(library, vocabulary(), encoder=encoder, settings=settings)
    Review(library, "mine", encoder=encoder, settings=settings).reject(1, "dog")
    other = WordEncoder("another")
    with library.writer() as writer:
        space = writer.add_space(other.space, address="other", runtime="w", precision="f32")
        names = [library.items([item])[item].content_hash for item in range(1, 61)]
        shown = other.encode_texts([SHOWN[name] for name in names])
        writer.commit(Batch(vectors=(space.id, names, shown)))
        writer.activate_space(space.id)
    with pytest.raises(TaggingError, match="the model that the library uses now"):
        Review(library, "mine", encoder=other, settings=settings)
    report = clipsearch.tag(library, vocabulary(), encoder=other, settings=settings)
    assert (report.items, report.known) == (60, 0)
    carried = library.tags.cutoffs(space.id)  # answers are about pictures: they count here, too
    answered = Review(library, "mine", encoder=other, settings=settings).reject(1, "dog")
    assert carried == {"dog": pytest.approx(answered)}
    assert "dog" not in tags_by_name(library)["dog0.jpg"]  # what was rejected stays rejected
    assert "dog" in tags_by_name(library)["dog1.jpg"]


def test_the_tagger_agrees_with_one_written_for_reading() -> None:
    random = np.random.default_rng(3)
    words = vocabulary(
        "a\n    b\n        c\n    d\ne\nf\ng\nh > i\none of: e, f\nat most one of: g, i\n"
    )
    prototypes = unit_rows(random.standard_normal((len(words), 12)))
    neutral = unit_rows(random.standard_normal((30, 12)))
    vectors = unit_rows(random.standard_normal((300, 12)))
    values = random.uniform(0.0, 0.3, len(words)).astype(np.float32)
    slopes = np.full(len(words), 6.0, np.float32)
    cutoffs = Cutoffs(values, slopes, Scale(0.0, 0.25), 0.1, 0.1)
    ids = np.arange(10, 310, dtype=np.int64)
    decided = {(int(item), "c") for item in ids[::7]} | {(11, "e"), (12, "a")}
    found = Tagger(words, prototypes, cutoffs, neutral, 2).assign(ids, vectors, decided)
    offsets = cutoffs.offsets(vectors, neutral)
    expected: dict[tuple[int, str], float] = {}
    grouped = {at for group in words.groups for at in group.members}
    for item, vector, offset in zip(ids.tolist(), vectors, offsets, strict=True):
        score = prototypes @ vector - offset
        second = np.sort(neutral @ vector - offset)[-2]
        may = [(item, name) not in decided for name in words.names]
        passing = [
            at
            for at in range(len(words))
            if score[at] >= values[at] and score[at] >= second and may[at]
        ]
        held = set(
            sorted((at for at in passing if at not in grouped), key=lambda at: -score[at])[:2]
        )
        for group in words.groups:
            odds = np.exp(6.0 * score[list(group.members)])
            winner = group.members[int(odds.argmax())]
            if odds.max() / odds.sum() >= 2 / 3 and (group.always_one or winner in passing):
                held.add(winner)
        held |= {above for at in held for above in words.concepts[at].ancestors}
        expected |= {(item, words.names[at]): score[at] for at in held if may[at]}
    assert {(item, name) for item, name, _ in found} == set(expected)
    for item, name, score in found:
        assert score == pytest.approx(expected[item, name], abs=1e-5)
    assert len(found) == len(expected) > 200


def test_prototypes_average_templates_then_synonyms_and_are_kept(
    encoder: WordEncoder, tmp_path: Path
) -> None:
    asked: list[int] = []

    def load() -> WordEncoder:
        asked.append(1)
        return encoder

    maker = Prototypes(encoder.space, load, tmp_path)
    sentences = [[["dog park", "dog"], ["hound"]], [["cat"]]]
    made = maker.of(sentences)
    one = unit_rows(encoder.encode_texts(["dog park", "dog"]).mean(axis=0)[None])
    two = encoder.encode_texts(["hound"])
    assert made[0] @ unit_rows(one + two)[0] == pytest.approx(1, abs=1e-4)
    assert np.array_equal(maker.of(sentences), made)
    assert len(asked) == 1
    (file,) = (tmp_path / "prototypes").iterdir()
    file.write_bytes(file.read_bytes()[:-7])  # damaged: made again, not trusted
    assert np.array_equal(maker.of(sentences), made)
    assert len(asked) == 2
    maker.of([[["dog park"]]])  # other sentences
    assert len(asked) == 3


def test_tags_by_hand_of_a_folder_are_added_and_removed(
    library: Library, encoder: WordEncoder, settings: Settings
) -> None:
    clipsearch.tag(library, vocabulary(), encoder=encoder, settings=settings)
    photos = library.roots()[0].path
    everything = library.tags.items_at(photos)
    assert len(everything) == 60
    with library.writer() as writer:
        assert writer.tags.add_by_hand(everything, "trip") == 60
        assert writer.tags.add_by_hand(everything, "trip") == 0
        assert writer.tags.remove_by_hand([item_of(library, "dog0.jpg")], "trip") == 1
        assert writer.tags.remove_by_hand([item_of(library, "dog0.jpg")], "meadow") == 1
    assert tags_by_name(library, "user")["dog0.jpg"] == set()
    assert "meadow" not in tags_by_name(library)["dog0.jpg"]
    assert library.tags.items_at(photos / "nothing.jpg") == []
    assert json.loads(json.dumps(library.tags.state("mine")))["items"] == 60
