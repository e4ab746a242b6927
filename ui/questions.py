"""The queue of the page's questions: bounded, and of those whose answer nobody reads none is asked.

Gradio's own keeps every session's messages until 2,000 others came, and ends for good when it has
something to say to one that is gone.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

from gradio import Blocks
from gradio.queueing import Event, Queue
from gradio.server_messages import EventMessage

AT_ONCE = 4  # questions of one kind
MAX_UNREAD = 256  # sessions that asked and do not read
UNREAD_S = 20.0  # so long a question waits for somebody who reads its answer
MAX_WAITING = 1_000
MAX_OF_SESSION = 16  # questions that wait


def queue_questions(page: Blocks) -> None:
    """Gives a page this queue; before it is mounted."""
    page.queue(default_concurrency_limit=AT_ONCE)
    page._queue = QuestionQueue(
        live_updates=False,
        concurrency_count=page.max_threads,
        update_intervals=1,
        max_size=MAX_WAITING,
        blocks=page,
        default_concurrency_limit=AT_ONCE,
    )
    page._queue.sleep_when_free = 0.005  # it looks again so soon while nothing can be taken up
    page.state_session_capacity = MAX_WAITING


class Messages(asyncio.Queue[EventMessage]):
    """What is to be told to one session; knows whether somebody reads it."""

    def __init__(self, client: str) -> None:
        super().__init__()
        self.client = client
        self.asked_at = 0.0  # when a question of the session was last taken up
        self._readers = 0
        self._seen_at = time.monotonic()

    async def get(self) -> EventMessage:
        self._readers += 1
        try:
            return await super().get()
        finally:
            self._readers -= 1
            self._seen_at = time.monotonic()

    @property
    def is_read(self) -> bool:
        return self._readers > 0

    @property
    def unread_s(self) -> float:
        """For how long nobody has read."""
        return 0.0 if self._readers else time.monotonic() - self._seen_at


class QuestionQueue(Queue):
    """Asks only what somebody waits for, and forgets sessions that nobody reads.

    A browser reads as soon as its question was taken. So a client that only asks costs a place
    among MAX_UNREAD, where those of the client with the most are given up first.
    """

    async def push(self, body: Any, request: Any, username: str | None) -> Any:
        session = body.session_hash
        async with self.pending_message_lock:
            held = self.pending_messages_per_session
            if session not in held:
                self._make_room()
                held[session] = Messages(request.client.host if request.client else "")
        of_session = sum(event.session_hash == session for event in self._waiting())
        if of_session >= MAX_OF_SESSION:
            return False, "Too many questions wait already: read their answers first.", "queue_full"
        return await super().push(body, request, username)

    def get_events(self) -> tuple[list[Event], bool, str] | None:
        """The question that is read whose session was asked for longest ago."""
        for name, line in self.event_queue_per_concurrency_id.items():
            limit = line.concurrency_limit
            if limit is not None and line.current_concurrency >= limit:
                continue
            read = [(one, self._messages(one.session_hash)) for one in line.queue]
            found = [(one, told) for one, told in read if told is not None and told.is_read]
            if found:
                event, messages = min(found, key=lambda pair: pair[1].asked_at)
                messages.asked_at = time.monotonic()
                line.queue.remove(event)
                return [event], False, name
        return None

    def send_message(self, event: Event, event_message: EventMessage) -> None:
        if event.session_hash in self.pending_messages_per_session:
            super().send_message(event, event_message)

    async def notify_clients(self) -> None:
        while not self.stopped:
            await asyncio.sleep(self.update_intervals)
            for session in list(self.pending_messages_per_session):
                messages = self._messages(session)
                if messages is None or messages.unread_s > UNREAD_S:
                    self._forget(session)
            for name in list(self.event_queue_per_concurrency_id):
                self.broadcast_estimations(name)

    def compute_analytics_summary(self, records: Any) -> Any:  # noqa: ARG002
        """Nothing: the base reckons over all questions ever asked, after each of them."""
        return self.cached_event_analytics_summary

    def _messages(self, session: str) -> Messages | None:
        found = self.pending_messages_per_session.get(session)
        return found if isinstance(found, Messages) else None

    def _waiting(self) -> list[Event]:
        lines = self.event_queue_per_concurrency_id.values()
        return [event for line in lines for event in line.queue]

    def _make_room(self) -> None:
        """Of too many unread sessions the oldest is forgotten, of the client with the most."""
        held = [(name, self._messages(name)) for name in self.pending_messages_per_session]
        unread = {name: one for name, one in held if one is not None and not one.is_read}
        if len(unread) < MAX_UNREAD:
            return
        ((most, _),) = Counter(messages.client for messages in unread.values()).most_common(1)
        self._forget(next(name for name, one in unread.items() if one.client == most))

    def _forget(self, session: str) -> None:
        self.pending_messages_per_session.pop(session, None)
        self.pending_event_ids_session.pop(session, None)
        for line in self.event_queue_per_concurrency_id.values():
            for event in [one for one in line.queue if one.session_hash == session]:
                line.queue.remove(event)
                self.event_ids_to_events.pop(event._id, None)
        for job in self.active_jobs:
            for event in job or ():
                if event.session_hash == session:
                    event.alive = False
