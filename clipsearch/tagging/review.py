"""The review of tags: what a model is least sure of, and answers that move its cut-offs at once."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipsearch.config import Settings, resolve
from clipsearch.encoders import Encoder
from clipsearch.errors import NotInLibraryError, TaggingError
from clipsearch.library import Library
from clipsearch.library.tag_writing import TagWriter
from clipsearch.tagging.learning import fitting_probability, learned_cutoff
from clipsearch.tagging.reporting import tag_command
from clipsearch.tagging.run import load_tagger
from clipsearch.tagging.vocabulary import BUILT_IN
from clipsearch.vectors import Ids

_BLOCK = 16_384
_AROUND = 400  # of one tag, the pictures whose scores are nearest to its cut-off


@dataclass(frozen=True)
class Doubt:
    """One question of a review: does the tag fit the picture?"""

    item: int
    path: Path
    tag: str
    score: float  # cosine less the picture's offset
    cutoff: float
    probability: float  # of fitting, by the score and the cut-off as answered so far
    given: bool  # the picture has the tag now


def open_review(
    library: Library,
    vocabulary: str | None = None,
    tag: str | None = None,
    *,
    settings: Settings | None = None,
    encoder: Encoder | None = None,
    notify: Callable[[str], None] | None = None,
) -> Review:
    """The review of a vocabulary: of the one named, else of the last used that holds the tag.

    Without a tag, or where none holds it, of the last used. A name may also be the file's that the
    vocabulary came from. TaggingError if the library was never tagged, or not by that vocabulary.
    """

    def opened(name: str) -> Review:
        return Review(library, name, settings=settings, encoder=encoder, notify=notify)

    known = library.tags.vocabularies()
    if not known:
        raise TaggingError(
            reason="The library has not been tagged yet, so there is nothing to review. "
            "Tag it first: clipsearch tag"
        )
    if vocabulary is not None:
        named = next((n for n in (vocabulary, Path(vocabulary).stem) if n in known), None)
        if named is None:
            raise TaggingError(
                reason=f"The library was never tagged by a vocabulary '{vocabulary}', but by "
                f"{', '.join(known)}. Use it first: {tag_command(vocabulary)}"
            )
        return opened(named)
    space = library.active_space()
    usable = [
        name
        for name in known
        if space is not None and (library.tags.state(name) or {}).get("space") == space.id
    ]
    first = opened((usable or known)[0])
    if tag is None or first.holds(tag):
        return first
    others = (opened(name) for name in usable[1:])
    return next((review for review in others if review.holds(tag)), first)


class Review:
    """Asks about the tags of one vocabulary, and learns from the answers.

    TaggingError where the library has no such tags yet. Answers are kept for good, the cut-offs
    they move belong to the model that the library uses now.
    """

    def __init__(
        self,
        library: Library,
        vocabulary: str = BUILT_IN,
        *,
        settings: Settings | None = None,
        encoder: Encoder | None = None,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        self._library = library
        self._settings = settings or resolve(library_settings=library.settings())
        self._encoder = encoder
        self._name = vocabulary
        self._tagger, self._space = load_tagger(
            library,
            vocabulary,
            settings=self._settings,
            encoder=encoder,
            notify=notify,
        )
        state = library.tags.state(vocabulary) or {}
        self._calibrated = [float(value) for value in state["cutoffs"]]

    @property
    def vocabulary(self) -> str:
        """The name of the vocabulary whose tags are asked about."""
        return self._name

    def holds(self, tag: str) -> bool:
        """True if the vocabulary has a tag of this name."""
        return self._tagger.vocabulary.find(tag) is not None

    def concept(self, tag: str) -> str:
        """The name of a tag in the vocabulary; TaggingError with a suggestion if it has none."""
        vocabulary = self._tagger.vocabulary
        at = vocabulary.find(tag)
        if at is None:
            close = difflib.get_close_matches(tag, vocabulary.names, 1)
            advice = f" Did you mean '{close[0]}'?" if close else ""
            raise TaggingError(
                reason=f"'{tag}' is no tag of the vocabulary '{self._name}'.{advice}"
            )
        return vocabulary.names[at]

    def queue(self, tag: str | None = None, limit: int = 50) -> list[Doubt]:
        """What to ask next, nearest to the cut-off first: of one tag, also below it; or of all.

        Left out is what a person has decided; without ``tag`` also what is only implied.
        """
        values = self._tagger.cutoffs.values.tolist()
        slopes = self._tagger.cutoffs.slopes.tolist()
        position = {name: at for at, name in enumerate(self._tagger.vocabulary.names)}
        name = None if tag is None else self.concept(tag)
        given = self._library.tags.given_by_model(self._name, name)
        scores = {(one.item, one.name): one.score or 0.0 for one in given if one.name in position}
        held = frozenset(scores)
        if name is None:
            scores = {
                key: score for key, score in scores.items() if score >= values[position[key[1]]]
            }
        else:
            ids, all_scores = self._scores(position[name])
            near = np.argsort(np.abs(all_scores - values[position[name]]))[:_AROUND]
            scores |= {(int(ids[at]), name): float(all_scores[at]) for at in near}
        order = sorted(
            (abs(slopes[position[key[1]]] * (score - values[position[key[1]]])), key)
            for key, score in scores.items()
        )
        found: list[Doubt] = []
        step = max(4 * limit, 100)
        for start in range(0, len(order), step):
            part = order[start : start + step]
            items = [item for _, (item, _) in part]
            decided = self._library.tags.decided_among(items)
            paths = self._library.paths(items)
            found += [
                Doubt(
                    item,
                    paths[item][0],
                    called,
                    scores[item, called],
                    values[position[called]],
                    self._probability(scores[item, called], position[called]),
                    (item, called) in held,
                )
                for _, (item, called) in part
                if item in paths and (item, called.casefold()) not in decided
            ]
            if len(found) >= limit:
                break
        return found[:limit]

    def current(self, doubt: Doubt) -> Doubt:
        """A question with the cut-off as answers have moved it since it was made."""
        at = self._tagger.vocabulary.names.index(doubt.tag)
        cutoff = float(self._tagger.cutoffs.values[at])
        return replace(doubt, cutoff=cutoff, probability=self._probability(doubt.score, at))

    def _probability(self, score: float, at: int) -> float:
        cutoffs = self._tagger.cutoffs
        value, slope = float(cutoffs.values[at]), float(cutoffs.slopes[at])
        return float(fitting_probability(np.array([score]), value, slope)[0])

    def accept(self, item: int, tag: str) -> float:
        """Says that a tag fits; it is the owner's from now on. Returns the tag's new cut-off."""
        return self._answer(item, tag, accepted=True)

    def reject(self, item: int, tag: str) -> float:
        """Says that a tag does not fit; no model gives it again. Returns the tag's new cut-off."""
        return self._answer(item, tag, accepted=False)

    def undo(self, item: int, tag: str) -> float:
        """Takes an answer back, and what it changed: tags and cut-off are as they were before."""
        return self._answer(item, tag, accepted=None)

    def _answer(self, item: int, tag: str, *, accepted: bool | None) -> float:
        name = self.concept(tag)
        at = self._tagger.vocabulary.names.index(name)
        if item not in self._library.items([item]):
            raise NotInLibraryError(
                what=f"Item {item}",
                path=self._library.path,
                advice="Items are the numbers that a search and a review print.",
            )
        ids, scores = self._scores(at)
        values = self._tagger.cutoffs.values
        with self._library.writer() as writer:
            if accepted is None:
                writer.tags.withdraw_answer(item, name)
            else:
                writer.tags.answer(item, name, accepted=accepted)
            learned = self._learned(name, at, ids, scores)
            writer.tags.set_cutoff(self._space.id, name, learned)
            before = float(values[at])
            values[at] = self._calibrated[at] if learned is None else learned
            changed = (scores >= before) != (scores >= values[at])
            self._assign_again(writer.tags, sorted({item, *ids[changed].tolist()}))
            if accepted is None:
                for review in self._others(name):
                    review._assign_again(writer.tags, [item])
        return float(values[at])

    def _others(self, tag: str) -> Iterator[Review]:
        """The reviews of the other vocabularies in this space that have a tag."""
        for name in self._library.tags.vocabularies():
            state = self._library.tags.state(name) or {}
            if name == self._name or state.get("space") != self._space.id:
                continue
            review = Review(self._library, name, settings=self._settings, encoder=self._encoder)
            if review.holds(tag):
                yield review

    def _learned(self, name: str, at: int, ids: Ids, scores: NDArray[np.float32]) -> float | None:
        """The most likely cut-off after all answers, or None without any."""
        known = dict(zip(ids.tolist(), scores.tolist(), strict=True))
        said = [
            (known[answer.item], 1.0 if answer.accepted else -1.0)
            for answer in self._library.tags.answers(name)
            if answer.item in known
        ]
        if not said:
            return None
        return learned_cutoff(
            np.array(said), float(self._tagger.cutoffs.slopes[at]), self._calibrated[at]
        )

    def _scores(self, at: int) -> tuple[Ids, NDArray[np.float32]]:
        """Every item's score for one concept."""
        ids: list[Ids] = [np.empty(0, np.int64)]
        scores: list[NDArray[np.float32]] = [np.empty(0, np.float32)]
        last = 0
        while True:
            some, vectors = self._library.tags.vectors_after(self._space.id, last, _BLOCK)
            if len(some) == 0:
                return np.concatenate(ids), np.concatenate(scores)
            ids.append(some)
            scores.append(self._tagger.scores(at, vectors))
            last = int(some[-1])

    def _assign_again(self, writer: TagWriter, items: list[int]) -> None:
        """Gives the items whose tag has changed all their tags anew, so that the rest fits."""
        for start in range(0, len(items), _BLOCK):
            part = items[start : start + _BLOCK]
            ids, vectors = self._library.vectors_of(self._space.id, part)
            if len(ids):
                rows = self._tagger.assign(ids, vectors, self._library.tags.decided_among(part))
                writer.replace_items(self._name, part, rows)
