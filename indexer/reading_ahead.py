"""Which pictures lack a vector, and having files read a bounded number ahead of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any

from clipsearch.encoders import Encoder
from clipsearch.library import ItemRecord, Library
from indexer.decoders import DecoderPool
from indexer.reading import EncoderOnDemand, Job, Reader, Reading

_STOP_CHECK_S = 0.2
# What one decoder reads in about the time that another takes to start.
_FILES_PER_START = 4
_BYTES_PER_START = 8_000_000


def backlog(library: Library, lacking: Sequence[int]) -> list[Job]:
    """Jobs for items that have a file and lack a vector; the moments of a video are one job."""
    paths = library.paths(lacking)
    items = library.items([item for item in lacking if paths.get(item)])
    moments: dict[int, list[ItemRecord]] = {}
    jobs = []
    for item, record in items.items():
        if record.parent_id is None:
            jobs.append(Job(paths[item][0], content_hash=record.content_hash))
        else:
            moments.setdefault(record.parent_id, []).append(record)
    for video, record in library.items(list(moments)).items():
        times = tuple((item.content_hash, item.time_s or 0.0) for item in moments[video])
        path = paths[moments[video][0].id][0]
        jobs.append(Job(path, content_hash=record.content_hash, moments=times))
    return jobs


class ReadingAhead:
    """Has jobs read in threads and gives the readings as they arrive, until ``should_stop``.

    ``load`` is called in the caller's thread, once, if a reading needs the model.
    """

    def __init__(
        self,
        reader: Reader,
        decoders: DecoderPool,
        on_demand: EncoderOnDemand,
        *,
        load: Callable[[], Encoder],
        threads: int,
        batch_size: int,
        should_stop: Callable[[], bool],
    ) -> None:
        self.was_stopped = False
        self._reader = reader
        self._decoders = decoders
        self._on_demand = on_demand
        self._load = load
        self._threads = threads
        self._batch_size = batch_size
        self._should_stop = should_stop

    def readings(self, jobs: Sequence[Job]) -> Iterator[Reading]:
        threads = _useful_threads(jobs, self._threads)
        ahead = 2 * (threads + self._batch_size)
        remaining = iter(jobs)
        finished: SimpleQueue[Future[Any]] = SimpleQueue()
        self._on_demand.wanted.add_done_callback(finished.put)
        with ThreadPoolExecutor(threads, thread_name_prefix="clipsearch-read") as pool:

            def submit(count: int) -> int:
                submitted = [
                    pool.submit(self._reader.read, job) for job in islice(remaining, count)
                ]
                for future in submitted:
                    future.add_done_callback(finished.put)
                return len(submitted)

            outstanding = submit(ahead)
            try:
                while outstanding:
                    future = self._next(finished)
                    if future is None:
                        self.was_stopped = True
                        return
                    if future is self._on_demand.wanted:
                        if not self._on_demand.is_settled:
                            self._on_demand.provide(self._load)
                        continue
                    outstanding += submit(1) - 1
                    yield future.result()
            finally:
                self._on_demand.refuse(CancelledError())
                if outstanding:  # nobody waits for what is still being decoded
                    self._decoders.stop()
                pool.shutdown(wait=True, cancel_futures=True)

    def _next(self, finished: SimpleQueue[Future[Any]]) -> Future[Any] | None:
        """What is finished next; None when the run is to stop."""
        while not self._should_stop():
            try:
                return finished.get(timeout=_STOP_CHECK_S)
            except Empty:
                continue
        return None


def _useful_threads(jobs: Sequence[Job], most: int) -> int:
    """How many threads, each with a decoder to start, read these files soonest."""
    size = sum(job.file.size for job in jobs if job.file is not None)
    starts = 1 + max(len(jobs) // _FILES_PER_START, size // _BYTES_PER_START)
    return max(1, min(most, len(jobs), starts))
