"""Close looks at pairs of pictures, by processes that may die of a file."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from clipsearch.config import DEFAULT_MAX_PIXELS, available_cores
from clipsearch.library import ItemRecord
from clipsearch.processes import own_command, own_environment

Verdict = Literal["same", "other", "unresolved", "unseen"]
PROGRAM = ("-m", "clipsearch.images.looking")
_PAIR_S = 120.0  # for what computes nothing and yet does not end, such as a dead network drive
_TELL_EVERY_S = 10.0
_AT_ONCE = 32  # pairs of one picture in a request
_MOST_PROCESSES = 4  # each takes up to 200 MB
_MANY = 200  # pairs
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class CloseLook:
    """What a close look at a pair of items told; see ``clipsearch.images.looking``."""

    verdict: Verdict
    why: str = ""
    enlarged: int | None = None  # the item of the two that is an enlargement of the other
    is_exact: bool = False


def look_closely(
    pairs: Sequence[tuple[int, int]],
    records: Mapping[int, ItemRecord],
    paths: Mapping[int, Sequence[Path]],
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    notify: Callable[[str], None] = lambda _: None,
) -> list[CloseLook]:
    """Looks at each pair of items, in their order. What cannot be looked at now is "unseen"."""
    groups: dict[int, list[int]] = {}
    for place, (one, _) in enumerate(pairs):
        groups.setdefault(one, []).append(place)
    work: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
    requests = 0
    for places in groups.values():
        for start in range(0, len(places), _AT_ONCE):
            work.put(places[start : start + _AT_ONCE])
            requests += 1
    looks: list[CloseLook] = [CloseLook("unseen")] * len(pairs)
    failed: list[BaseException] = []
    stop = threading.Event()

    def given(item: int) -> dict[str, Any]:
        names = [
            os.fsencode(path).decode("utf-8", "surrogateescape") for path in paths.get(item, ())
        ]
        return {"hash": records[item].content_hash, "paths": names}

    def run() -> None:
        eyes = _Process(max_pixels)
        try:
            while not stop.is_set():
                try:
                    places = work.get_nowait()
                except queue.Empty:
                    return
                one = pairs[places[0]][0]
                others = [given(pairs[place][1]) for place in places]
                for place, answer in zip(places, eyes.ask(given(one), others), strict=True):
                    looks[place] = _look(answer, pairs[place])
        except BaseException as error:
            failed.append(error)
        finally:
            eyes.close()

    count = min(available_cores(), _MOST_PROCESSES, requests)
    threads = [threading.Thread(target=run, name="close-looks", daemon=True) for _ in range(count)]
    if len(pairs) >= _MANY:
        notify(f"Looking closely at {len(pairs):,} pairs")
    for thread in threads:
        thread.start()
    told = time.monotonic()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(timeout=0.5)
                if time.monotonic() - told > _TELL_EVERY_S:
                    told = time.monotonic()
                    done = 1 - work.qsize() / requests
                    notify(f"Looking closely at {len(pairs):,} pairs: {done:.0%}")
    finally:
        stop.set()
    if failed:
        raise failed[0]
    return looks


def _look(answer: dict[str, Any], pair: tuple[int, int]) -> CloseLook:
    place = answer.get("enlarged")
    return CloseLook(
        cast("Verdict", answer["verdict"]),
        str(answer.get("why", "")),
        pair[place] if place in (0, 1) else None,
        bool(answer.get("exact")),
    )


class _Process:
    """One looking process, started when it is first asked and again after it died."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._process: subprocess.Popen[str] | None = None

    def ask(self, one: dict[str, Any], others: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """An answer for each of ``others``; the pair that ends the process is unseen."""
        answers: list[dict[str, Any]] = []
        while len(answers) < len(others):
            process = self._running()
            request = {"one": one, "others": others[len(answers) :]}
            watch: threading.Timer | None = None
            try:
                assert process.stdin is not None and process.stdout is not None  # noqa: S101
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
                while len(answers) < len(others):
                    watch = threading.Timer(_PAIR_S, process.kill)
                    watch.daemon = True
                    watch.start()
                    line = process.stdout.readline()
                    watch.cancel()
                    answers.append(_parsed(line))
            except (OSError, ValueError):
                self.close()
                answers.append({"verdict": "unseen", "why": "looking at it ended the decoder"})
            finally:
                if watch is not None:
                    watch.cancel()
        return answers

    def close(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    continue
        process.wait()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = subprocess.Popen(
                own_command(*PROGRAM, str(self._max_pixels)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=own_environment(**_ONE_THREAD),
                text=True,
                encoding="ascii",
            )
        return self._process


def _parsed(line: str) -> dict[str, Any]:
    """ValueError for what is no answer, such as the end of the stream."""
    answer = json.loads(line)
    if not isinstance(answer, dict) or answer.get("verdict") not in (
        *("same", "other", "unresolved", "unseen"),
    ):
        raise ValueError("no answer")
    return answer
