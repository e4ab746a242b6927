"""Readings in, committed batches out: a photo's row, item, words and vectors go together.

Encoding happens outside of transactions; one transaction writes what is complete.
"""

from __future__ import annotations

import time
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from clipsearch.encoders import Encoder
from clipsearch.library import Batch, Description, FileRecord, FileState, NewItem, SidecarState
from clipsearch.vectors import Matrix, Pixels, Vector
from indexer.changes import NOT_READ_MTIME_NS
from indexer.likeness import Likeness
from indexer.reading import MomentReading, Reading, moment_item
from indexer.report import Failure, IndexReport

COMMIT_AFTER_FILES = 256
COMMIT_AFTER_S = 5.0

Key = tuple[int, str]  # root id and relative path


class Filler:
    """Turns the readings of one run, in any order, into batches.

    A photo's row, its items and their vectors are committed together, so a crash leaves either all
    or nothing of it. ``previous`` are the rows that the library had, ``gone`` those whose files
    this run does not find, ``last_known`` the greatest id of an item that it had. ``commit`` writes
    a batch whole or not at all. ``on_failure`` hears of each new failure; ``sidecar_failures`` are
    those known before, by file and name. ``likeness`` says of changed files whether their picture
    is the same.
    """

    def __init__(
        self,
        commit: Callable[[Batch], None],
        report: IndexReport,
        previous: Mapping[Key, FileRecord],
        gone: Sequence[FileRecord],
        batch_size: int,
        on_failure: Callable[[Failure], None],
        sidecar_failures: Mapping[tuple[Key, str], str] | None = None,
        likeness: Likeness | None = None,
        last_known: int | None = None,
    ) -> None:
        self._on_failure = on_failure
        self._sidecar_failures = dict(sidecar_failures or {})
        self._told: set[Path] = set()  # sidecars that several photos share are told of once
        self._commit = commit
        self._report = report
        self._previous = previous
        self._leaving = frozenset(record.id for record in gone)
        self._gone: dict[int, list[FileRecord]] = defaultdict(list)  # by item, not found elsewhere
        for record in gone:
            if record.item_id is not None:
                self._gone[record.item_id].append(record)
        self._renamed = {_spelling(record.root_id, record.relpath): record for record in gone}
        self._renumbered = {(record.root_id, record.inode): record for record in gone}
        self._likeness = likeness
        self._last_known = last_known
        self._batch_size = batch_size
        self._encoder: Encoder | None = None
        self._space_id = ""
        self._to_encode: list[Reading] = []
        self._waiting: dict[str, list[Reading]] = {}  # copies of a content not encoded yet
        self._outcomes: dict[str, str | None] = {}  # content of this run -> failure, or None
        self._committed_at = time.monotonic()
        self._clear()

    def encode_with(self, encoder: Encoder, space_id: str) -> None:
        """Says what makes the vectors; before the first reading with pixels is taken."""
        self._encoder, self._space_id = encoder, space_id

    def take(self, reading: Reading) -> None:
        """Adds one reading; encodes when a batch is full, commits when enough is ready."""
        if reading.left is not None:
            self._report.left.append(Failure(reading.job.path, reading.left))
        elif reading.failure is not None:
            self._fail(reading, reading.failure)
            if reading.was_read:
                self._settle(reading.content_hash, reading.failure)
        elif reading.pixels is not None:
            self._to_encode.append(reading)
        elif reading.moments is not None:
            self._take_video(reading, reading.moments)
        elif reading.known_item is not None:
            self._link(reading)
        elif reading.content_hash in self._outcomes:
            self._follow(reading, self._outcomes[reading.content_hash])
        else:
            self._waiting.setdefault(reading.content_hash, []).append(reading)
        if len(self._to_encode) >= self._batch_size:
            self.encode()
        if self._is_due():
            self.commit()

    def encode(self) -> None:
        """Makes the vectors of everything that waits for one."""
        if not self._to_encode:
            return
        readings, self._to_encode = self._to_encode, []
        pixels = [reading.pixels for reading in readings if reading.pixels is not None]
        self._vectors.append(self._encoded(pixels))
        for reading in readings:
            self._hashes.append(reading.content_hash)
            if reading.item is None:
                self._link(reading)
            else:
                self._new_items.append(reading.item)
                self._keep_words(reading)
                self._add(reading)
            self._settle(reading.content_hash, None)

    def _take_video(self, reading: Reading, moments: tuple[MomentReading, ...]) -> None:
        """Makes the vectors of a video's moments at once, so that they are committed together."""
        vectors = self._encoded([moment.pixels for moment in moments])
        if reading.item is not None:
            self._new_items.append(reading.item)
            self._new_items += [moment_item(reading.item, moment) for moment in moments]
        if len(vectors):
            self._vectors.append(vectors)
        self._hashes += [moment.content_hash for moment in moments]
        if reading.job.is_backlog:
            return
        self._keep_words(reading)
        self._add(reading)
        if reading.description is not None and reading.description.metadata.get("live_photo"):
            self._report.live_photos += 1
        self._settle(reading.content_hash, None)

    def _encoded(self, pixels: list[Pixels]) -> Matrix:
        """(n, dim) unit rows of n pictures, a batch at a time."""
        assert self._encoder is not None  # noqa: S101 - pixels were made for it
        made = []
        for start in range(0, len(pixels), self._batch_size):
            try:
                batch = np.stack(pixels[start : start + self._batch_size])
                made.append(self._encoder.encode_images(batch))
            except BaseException:
                self.commit()  # what was made before the trouble is kept
                raise
        self._report.embedded += len(pixels)
        return np.concatenate(made) if made else np.empty((0, self._encoder.space.dim), np.float32)

    def commit(self) -> None:
        """Writes everything that is complete in one transaction."""
        self._committed_at = time.monotonic()
        if not (self._files or self._hashes or self._descriptions):
            return
        vectors = None
        if self._hashes:
            vectors = (self._space_id, self._hashes, np.concatenate(self._vectors))
            self._compare(dict(zip(self._hashes, vectors[2], strict=True)))
        else:
            self._compare({})
        batch = Batch(
            new_items=self._new_items,
            vectors=vectors,
            files=self._files,
            descriptions=self._descriptions,
            leaving=self._leaving,
            last_known=self._last_known,
        )
        self._clear()
        self._commit(batch)

    def _compare(self, vectors: Mapping[str, Vector]) -> None:
        """Notes of the files whose content changed whether they show the same picture."""
        if self._likeness is None:
            return
        for at, old, moments, is_proved in self._changed:
            file = self._files[at]
            if file.content_hash is not None:
                is_same = self._likeness.is_same(old, file.content_hash, moments, vectors)
                moved_from = file.moved_from if is_same or is_proved else None
                self._files[at] = replace(file, is_same=is_same, moved_from=moved_from)

    def _settle(self, content_hash: str, failure: str | None) -> None:
        """Decides the copies of a content along with the one that was decoded."""
        self._outcomes[content_hash] = failure
        for copy in self._waiting.pop(content_hash, []):
            self._follow(copy, failure)

    def _follow(self, copy: Reading, failure: str | None) -> None:
        if failure is None:
            self._link(copy)
        else:
            self._fail(copy, failure)

    def _add(self, reading: Reading) -> None:
        """A row for content that is new to the library."""
        record = self._known_row(reading)
        if record is not None and record.item_id is not None:
            self._report.changed += 1
        else:
            self._report.added += 1
        self._write_row(reading)

    def _link(self, reading: Reading) -> None:
        """A row for content that the library holds; an item that lacked a vector has its rows."""
        if reading.job.is_backlog:
            return
        self._keep_words(reading)
        record = self._known_row(reading)
        if record is not None and record.item_id == reading.known_item is not None:
            self._report.unchanged += 1  # only its time or inode is another
        elif reading.known_item is not None and self._gone[reading.known_item]:
            self._report.moved += 1
            self._write_row(reading, moved_from=self._left(reading, self._gone[reading.known_item]))
            return
        else:
            self._report.copied += 1
        self._write_row(reading)

    def _left(self, reading: Reading, gone: list[FileRecord]) -> int | None:
        """Takes one of the rows that a moved file may have left; its id if it was renamed.

        A copy has another inode: its original may only be out of reach, with the disk it is on.
        """
        assert reading.file is not None  # noqa: S101 - its content is known, so it was read
        inode = reading.file.inode
        for at, record in enumerate(gone):
            if inode and record.inode == inode:
                return gone.pop(at).id
        gone.pop()
        return None

    def _fail(self, reading: Reading, reason: str) -> None:
        failure = Failure(reading.job.path, reason)
        if reading.job.is_backlog:
            self._report.left.append(failure)
            return
        if self._is_known_failure(reading, reason):
            self._report.known_failures += 1
        else:
            self._report.failures.append(failure)
            self._on_failure(failure)
        self._write_row(reading, failure=reason)

    def _is_known_failure(self, reading: Reading, reason: str) -> bool:
        record = self._known_row(reading)
        if record is None or record.failure is None or reading.file is None:
            return False
        if not reading.was_read or record.mtime_ns == NOT_READ_MTIME_NS:
            return record.failure == reason
        return (record.size, record.mtime_ns) == (reading.file.size, reading.file.mtime_ns)

    def _known_row(self, reading: Reading) -> FileRecord | None:
        assert reading.job.file is not None  # noqa: S101 - only an item's backlog has none
        return self._previous.get((reading.job.root_id, reading.job.file.relpath))

    def _write_row(
        self, reading: Reading, failure: str | None = None, moved_from: int | None = None
    ) -> None:
        file = reading.file
        assert file is not None  # noqa: S101 - every reading that is not left has one
        record = self._known_row(reading)
        if failure is None and record is not None and record.item_id is not None:
            if record.item_id != reading.known_item:
                moments = {one.time_s: one.content_hash for one in reading.moments or ()}
                is_proved = moved_from is not None  # by the content that it had elsewhere
                self._changed.append((len(self._files), record.item_id, moments, is_proved))
        elif failure is None and record is None and moved_from is None:
            moved_from = self._edited_and_renamed(reading)
        elif failure is not None and record is not None and record.item_id is not None:
            self._report.unread += 1
        self._files.append(
            FileState(
                root_id=reading.job.root_id,
                relpath=file.relpath,
                size=file.size,
                mtime_ns=file.mtime_ns if reading.was_read else NOT_READ_MTIME_NS,
                inode=file.inode,
                content_hash=None if failure else reading.content_hash,
                failure=failure,
                sidecars=file.sidecars,
                beside=None if failure else reading.beside,
                moved_from=moved_from,
            )
        )

    def _edited_and_renamed(self, reading: Reading) -> int | None:
        """The row that a new path with a new content had under another name, if that is plain.

        It was spelt in another case or with other accents, or was the same file by its inode; then
        only if it shows the same picture.
        """
        root_id, file = reading.job.root_id, reading.file
        assert file is not None  # noqa: S101 - as in ``_write_row``
        record = self._renamed.get(_spelling(root_id, file.relpath))
        if record is None and file.inode:
            record = self._renumbered.get((root_id, file.inode))
        if record is None or record.item_id in (None, reading.known_item):
            return None
        moments = {one.time_s: one.content_hash for one in reading.moments or ()}
        self._changed.append((len(self._files), record.item_id or 0, moments, False))
        return record.id

    def _keep_words(self, reading: Reading) -> None:
        if reading.description is not None:
            self._descriptions.append(reading.description)
        for sidecar in reading.beside or ():
            if sidecar.failure is not None and reading.file is not None:
                self._tell_of_sidecar(reading, reading.file.relpath, sidecar)

    def _tell_of_sidecar(self, reading: Reading, relpath: str, sidecar: SidecarState) -> None:
        path = reading.job.path.with_name(sidecar.name)
        if path in self._told:
            return
        self._told.add(path)
        known = self._sidecar_failures.get(((reading.job.root_id, relpath), sidecar.name))
        if known == sidecar.failure:
            self._report.known_failures += 1
        else:
            failure = Failure(path, str(sidecar.failure))
            self._report.failures.append(failure)
            self._on_failure(failure)

    def _clear(self) -> None:
        self._files: list[FileState] = []
        # Of files with another content than before: place in the list above, item, new moments,
        # and whether it is proved that they were moved.
        self._changed: list[tuple[int, int, dict[float, str], bool]] = []
        self._descriptions: list[Description] = []
        self._new_items: list[NewItem] = []
        self._hashes: list[str] = []
        self._vectors: list[Matrix] = []

    def _is_due(self) -> bool:
        waited = time.monotonic() - self._committed_at
        return len(self._files) + len(self._hashes) >= COMMIT_AFTER_FILES or waited > COMMIT_AFTER_S


def _spelling(root_id: int, relpath: str) -> Key:
    """The same for names that differ in case and in how accents are written only."""
    return root_id, unicodedata.normalize("NFC", relpath).casefold()
