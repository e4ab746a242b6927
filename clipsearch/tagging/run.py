"""Tags for a whole library: what is new, or everything, from the vectors that are stored."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from clipsearch.config import Settings, resolve
from clipsearch.encoders import Encoder, load_encoder
from clipsearch.errors import SpaceMismatchError, TaggingError, UsageError
from clipsearch.library import Library, SpaceRecord
from clipsearch.library.tag_writing import TagWriter
from clipsearch.library.tags import Answer
from clipsearch.relevance import Scale, neutral_texts
from clipsearch.tagging.assigning import TOP_TAGS, Cutoffs, Row, Tagger, calibrate
from clipsearch.tagging.learning import AT_CUTOFF, PRIOR_WIDTH, learned_cutoff
from clipsearch.tagging.prototypes import Progress, Prototypes
from clipsearch.tagging.reporting import Counted, TagReport, tag_command
from clipsearch.tagging.templates import Templates, read_templates, templates_of, wordings
from clipsearch.tagging.vocabulary import (
    BUILT_IN,
    Vocabulary,
    everyday,
    parse_vocabulary,
    read_vocabulary,
)
from clipsearch.user_paths import expand_user
from clipsearch.vectors import Ids, Matrix

MAX_TOP_TAGS = 100
_BLOCK = 4096  # items at once: their scores take _BLOCK x tags x 4 bytes
_GROWN = 1.25  # a library this much larger than when its cut-offs were made gets new ones


def tag(
    library: Library,
    vocabulary: Vocabulary | Path | str | None = None,
    *,
    templates: str | None = None,
    top_tags: int = TOP_TAGS,
    again: bool = False,
    dry_run: bool = False,
    settings: Settings | None = None,
    encoder: Encoder | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    notify: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TagReport:
    """Tags a library's pictures with a vocabulary: by default the built-in one, else a file's.

    Looks at what is new since the last run with the same vocabulary, templates and model, and at
    everything if one of them changed, the library has grown by a quarter, or ``again``. Replaces
    what the same vocabulary gave before; tags that a person gave or rejected are never touched.
    ``templates`` is a domain or a file. ``progress`` gets a stage ("words", "cut-offs",
    "pictures"), how much of it is done, and of how much. Raises VocabularyError, TaggingError,
    LibraryLockedError.
    """
    if not 1 <= top_tags <= MAX_TOP_TAGS:
        raise UsageError(reason=f"top_tags must be between 1 and {MAX_TOP_TAGS}, not {top_tags}")
    words, path = _read(vocabulary)
    space = library.active_space()
    if space is None:
        raise TaggingError(
            reason="The library holds no pictures yet. Add some: clipsearch index FOLDER"
        )
    run = _Run(
        library,
        words,
        space,
        templates=templates,
        path=path,
        settings=settings or resolve(library_settings=library.settings()),
        encoder=encoder,
        progress=progress or (lambda *_: None),
        notify=notify,
    )
    return run.tagged(
        top_tags, again=again, dry_run=dry_run, should_stop=should_stop, used_at=_now()
    )


def tag_again(
    library: Library,
    *,
    settings: Settings,
    progress: Callable[[str, int, int], None] | None = None,
    notify: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[TagReport]:
    """Tags by every vocabulary that the library was tagged with, in the space that it uses now.

    Templates and the number of tags are those of the last runs, and which vocabulary was used
    last stays so. Errors as in ``tag``.
    """
    space, reports = library.active_space(), []
    for name in library.tags.vocabularies():
        state = library.tags.state(name)
        if state is None or space is None or should_stop():
            break
        run = _run_of(library, name, state, space, settings, None, notify, progress)
        reports.append(
            run.tagged(int(state["top"]), again=False, dry_run=False, should_stop=should_stop)
        )
    return reports


def load_tagger(
    library: Library,
    name: str,
    *,
    settings: Settings,
    encoder: Encoder | None = None,
    notify: Callable[[str], None] | None = None,
) -> tuple[Tagger, SpaceRecord]:
    """What the last run with a vocabulary tagged by, with cut-offs as answers have moved them.

    TaggingError if there was none, or the library uses another model since.
    """
    state, space = library.tags.state(name), library.active_space()
    if state is None or space is None or state["space"] != space.id:
        raise TaggingError(
            reason=f"The pictures have no tags of the vocabulary '{name}' by the model that the "
            f"library uses now. Make them first: {tag_command(name)}"
        )
    run = _run_of(library, name, state, space, settings, encoder, notify, None)
    if len(state["cutoffs"]) != run.concepts:
        raise TaggingError(
            reason=f"The vocabulary '{name}' has changed since. Run again: clipsearch tag"
        )
    return run.tagger(state), space


def _run_of(
    library: Library,
    name: str,
    state: dict[str, Any],
    space: SpaceRecord,
    settings: Settings,
    encoder: Encoder | None,
    notify: Callable[[str], None] | None,
    progress: Callable[[str, int, int], None] | None,
) -> _Run:
    """A run with a vocabulary as it was the last time."""
    words = (
        everyday()
        if name == BUILT_IN
        else parse_vocabulary(state["text"], name=name, path=Path(name))
    )
    return _Run(
        library,
        words,
        space,
        templates=None,
        path=name,
        settings=settings,
        encoder=encoder,
        progress=progress or (lambda *_: None),
        notify=notify,
        fixed_templates=None if state["templates"] is None else tuple(state["templates"]),
    )


def _read(vocabulary: Vocabulary | Path | str | None) -> tuple[Vocabulary, Path | str]:
    if vocabulary is None:
        return everyday(), BUILT_IN
    if isinstance(vocabulary, Vocabulary):
        return vocabulary, vocabulary.name
    path = expand_user(vocabulary)
    return read_vocabulary(path), path


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


class _Run:
    def __init__(
        self,
        library: Library,
        vocabulary: Vocabulary,
        space: SpaceRecord,
        *,
        templates: str | None,
        path: Path | str,
        settings: Settings,
        encoder: Encoder | None,
        progress: Callable[[str, int, int], None],
        notify: Callable[[str], None] | None,
        fixed_templates: Templates | None = None,
    ) -> None:
        self._library = library
        self._vocabulary = vocabulary
        self._space = space
        self._settings = settings.of(library.path)
        self._encoder = encoder
        self._progress = progress
        self._notify = notify
        self._templates = fixed_templates or (read_templates(templates) if templates else None)
        own = templates_of(vocabulary, path)
        self._sentences = [
            wordings(concept, self._templates or each)
            for concept, each in zip(vocabulary.concepts, own, strict=True)
        ]
        words: Progress = lambda done, total: self._progress("words", done, total)  # noqa: E731
        self._prototypes = Prototypes(space.space, self._load, settings.cache_dir, words)
        self._neutral = self._prototypes.of([[[text]] for text in neutral_texts()])

    @property
    def concepts(self) -> int:
        return len(self._vocabulary)

    def _load(self) -> Encoder:
        encoder = self._encoder or load_encoder(
            self._space.address,
            settings=self._settings,
            space=self._space.space,
            notify=self._notify,
        )
        if encoder.space != self._space.space:
            raise SpaceMismatchError(
                expected=self._space.address, found=encoder.address, address=encoder.address
            )
        self._encoder = encoder
        return encoder

    def tagged(
        self,
        top: int,
        *,
        again: bool,
        dry_run: bool,
        should_stop: Callable[[], bool],
        used_at: str | None = None,
    ) -> TagReport:
        """Tags what is new, or everything; ``used_at`` is when a person asked for it, if so."""
        started = time.perf_counter()
        prototypes = self._prototypes.of(self._sentences)
        learning = [AT_CUTOFF, PRIOR_WIDTH]  # what answers make of cut-offs
        digest = _digest(self._space.id, self._vocabulary.text, self._sentences, top, learning)
        notes = tuple(dict.fromkeys(self._prototypes.notes))
        if self._notify is not None:
            for note in notes:
                self._notify(note)
        state = self._library.tags.state(self._vocabulary.name)
        count = self._library.tags.embedded_after(self._space.id, 0)
        before = (state or {}).get("used_at", "")
        is_calibrated = False
        if again or state is None or state["digest"] != digest or count > _GROWN * state["items"]:
            cutoffs = calibrate(prototypes, self._neutral, count, lambda: self._blocks("cut-offs"))
            state = {
                "digest": digest,
                "space": self._space.id,
                "items": count,
                "last_item": 0,
                "top": top,
                "templates": self._templates,
                "text": "" if self._vocabulary.name == BUILT_IN else self._vocabulary.text,
                "cutoffs": [float(value) for value in cutoffs.values],
                "slopes": [float(value) for value in cutoffs.slopes],
                "scale": list(astuple(cutoffs.scale)),
                "usual": cutoffs.usual,
                "familiarity": cutoffs.familiarity,
            }
            is_calibrated = True
        state["used_at"] = used_at or before
        counted = Counted()
        known = count - self._library.tags.embedded_after(self._space.id, state["last_item"])
        interrupted = self._all(state, prototypes, counted, dry_run, should_stop, is_calibrated)
        return TagReport(
            vocabulary=self._vocabulary.name,
            concepts=len(self._vocabulary),
            items=counted.items,
            known=known,
            tags=counted.tags.total(),
            untagged=counted.untagged,
            seconds=time.perf_counter() - started,
            dry_run=dry_run,
            interrupted=interrupted,
            most=dict(counted.tags.most_common(20)),
            notes=notes,
        )

    def tagger(self, state: dict[str, Any], prototypes: Matrix | None = None) -> Tagger:
        """Tags as a run left it, with the cut-offs that answers have moved."""
        values = np.array(state["cutoffs"], np.float32)
        for name, cutoff in self._library.tags.cutoffs(self._space.id).items():
            at = self._vocabulary.find(name)
            if at is not None and self._vocabulary.names[at] == name:
                values[at] = cutoff
        return Tagger(
            self._vocabulary,
            self._prototypes.of(self._sentences) if prototypes is None else prototypes,
            Cutoffs(
                values,
                np.array(state["slopes"], np.float32),
                Scale(*state["scale"]),
                state["usual"],
                state["familiarity"],
            ),
            self._neutral,
            int(state["top"]),
        )

    def _all(
        self,
        state: dict[str, Any],
        prototypes: Matrix,
        counted: Counted,
        dry_run: bool,
        should_stop: Callable[[], bool],
        is_calibrated: bool,
    ) -> bool:
        """Tags everything after the last item of the state; True if it was stopped before the end.

        Each block is one transaction together with the state, so that a run that is stopped or
        killed goes on from there.
        """
        if dry_run:
            tagger = self.tagger(state, prototypes)
            for ids, vectors in self._blocks("pictures", state["last_item"]):
                counted.add(len(ids), self._tags(tagger, ids, vectors))
                if should_stop():
                    return True
            return False
        with self._library.writer() as writer:
            self._carry_answers(writer.tags, state, prototypes, again=is_calibrated)
            tagger = self.tagger(state, prototypes)
            for ids, vectors in self._blocks("pictures", state["last_item"]):
                rows = self._tags(tagger, ids, vectors)
                after, last = state["last_item"], int(ids[-1])
                state = {**state, "last_item": last}
                writer.tags.replace_range(self._vocabulary.name, after, last, rows, state)
                counted.add(len(ids), rows)
                if should_stop():
                    return True
            if not counted.items:
                writer.tags.set_state(self._vocabulary.name, state)
        return False

    def _carry_answers(
        self, writer: TagWriter, state: dict[str, Any], prototypes: Matrix, *, again: bool
    ) -> None:
        """Moves the cut-offs that no answer has moved yet, or all, by all answers there are.

        Answers are about pictures; the cut-offs they moved before were those of another model, or
        of an earlier calibration.
        """
        known = self._library.tags.cutoffs(self._space.id)
        calibrated = self.tagger(state, prototypes)
        said: dict[str, list[Answer]] = {}
        for answer in self._library.tags.answers():
            said.setdefault(answer.name, []).append(answer)
        for name, answers in said.items():
            at = self._vocabulary.find(name)
            if at is None or (name in known and not again) or self._vocabulary.names[at] != name:
                continue
            sign = {answer.item: 1.0 if answer.accepted else -1.0 for answer in answers}
            ids, vectors = self._library.vectors_of(self._space.id, list(sign))
            if len(ids):
                pairs = zip(calibrated.scores(at, vectors), ids.tolist(), strict=True)
                rows = np.array([(float(score), sign[item]) for score, item in pairs])
                slope, before = state["slopes"][at], state["cutoffs"][at]
                writer.set_cutoff(self._space.id, name, learned_cutoff(rows, slope, before))

    def _tags(self, tagger: Tagger, ids: Ids, vectors: Matrix) -> list[Row]:
        return tagger.assign(ids, vectors, self._library.tags.decided(int(ids[0]), int(ids[-1])))

    def _blocks(self, stage: str, after: int = 0) -> Iterator[tuple[Ids, Matrix]]:
        """The vectors of all items after one, in pieces, told to ``progress``."""
        total = self._library.tags.embedded_after(self._space.id, after)
        done = 0
        while True:
            ids, vectors = self._library.tags.vectors_after(self._space.id, after, _BLOCK)
            if len(ids) == 0:
                return
            yield ids, vectors
            after = int(ids[-1])
            done += len(ids)
            self._progress(stage, done, max(done, total))
