"""How much one visitor may have going on at once: streams, uploads, and time to send something."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.problems import problem
from ui.uploads import MAX_BYTES, MAX_UPLOAD_BYTES, Uploads

_STREAMS = ("/gradio_api/queue/data", "/gradio_api/heartbeat", "/gradio_api/upload_progress")
_UPLOADS = ("/gradio_api/upload", "/api/search")
MAX_STREAMS, MAX_STREAMS_OF_ONE = 256, 64
MAX_UPLOADS, MAX_UPLOADS_OF_ONE = 48, 24
_COPIES = 2  # of an upload that lie on the disk for a moment
MAX_BYTES_OF_ONE = MAX_BYTES // 2  # that one visitor may have on their way, copies and all
_SILENCE_S = 30.0  # without a byte of a body
_BEGIN_S, _BYTES_PER_S = 60.0, 16_000  # a body has so long, and more by its length
_RETRY = {"retry-after": "5"}


class Limits:
    """ASGI middleware. Of too many streams the oldest of whoever has most ends; of too many
    uploads the newest is refused.
    """

    def __init__(self, app: ASGIApp, uploads: Uploads) -> None:
        self._app = app
        self._uploads = uploads
        self._streams: dict[asyncio.Task[None], str] = {}
        self._uploading: Counter[str] = Counter()
        self._coming_bytes: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"].startswith(_STREAMS):
            await self._stream(scope, receive, send)
        elif scope["method"] == "POST" and scope["path"].rstrip("/") in _UPLOADS:
            await self._upload(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = client_of(scope)
        while self._is_too_many(client):
            self._end_oldest(client)
        began = ended = False

        async def noted(message: Message) -> None:
            nonlocal began, ended
            began = True
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        task = asyncio.ensure_future(_run(self._app, scope, receive, noted))
        self._streams[task] = client
        try:
            await asyncio.wait({task})
        finally:
            self._streams.pop(task, None)
            if not task.done():  # the server stops
                task.cancel()
        if not task.cancelled() and not (began and _is_refusal(task.exception())):
            task.result()
        elif not began:
            await problem(503, "Too many streams are open.", _RETRY)(scope, receive, send)
        elif not ended:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _is_too_many(self, client: str) -> bool:
        of_client = sum(one == client for one in self._streams.values())
        return of_client >= MAX_STREAMS_OF_ONE or len(self._streams) >= MAX_STREAMS

    def _end_oldest(self, client: str) -> None:
        counted = Counter(self._streams.values())
        most = client if counted[client] >= MAX_STREAMS_OF_ONE else counted.most_common(1)[0][0]
        oldest = next(task for task, one in self._streams.items() if one == most)
        del self._streams[oldest]
        oldest.cancel()

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        length = Headers(scope=scope).get("content-length", "")
        client = client_of(scope)
        if not length.isascii() or not length.isdigit():
            answer = problem(411, "An upload has to say its length.")
        elif int(length[:16]) > MAX_UPLOAD_BYTES:
            answer = problem(413, f"An upload has at most {MAX_UPLOAD_BYTES:,} bytes in all.")
        elif (
            self._uploading.total() >= MAX_UPLOADS
            or self._uploading[client] >= MAX_UPLOADS_OF_ONE
            or self._coming_bytes[client] + int(length) * _COPIES > MAX_BYTES_OF_ONE
        ):
            answer = problem(503, "Too many uploads are on their way; try again soon.", _RETRY)
        else:
            size = int(length)
            with (
                self._counted(client, size * _COPIES),
                self._uploads.reserved(size * _COPIES) as has_room,
            ):
                if has_room:
                    await self._app(scope, in_time(receive, size), send)
                    return
            answer = problem(
                507, "There is no room for more uploads now; try again in a few minutes.", _RETRY
            )
        await answer(scope, receive, send)

    @contextmanager
    def _counted(self, client: str, size: int) -> Iterator[None]:
        self._uploading[client] += 1
        self._coming_bytes[client] += size
        try:
            yield
        finally:
            self._uploading[client] -= 1
            self._coming_bytes[client] -= size
            if not self._uploading[client]:
                del self._uploading[client], self._coming_bytes[client]


async def _run(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


def _is_refusal(error: BaseException | None) -> bool:
    """Whether gradio says by it, in the middle of its answer, that it does not know a session."""
    reason = error and error.__cause__
    return isinstance(error, HTTPException) or isinstance(reason, HTTPException)


def client_of(scope: Scope) -> str:
    """The address that a request came from."""
    return str((scope.get("client") or ("",))[0])


def in_time(receive: Receive, size: int, *, within_s: float = _BEGIN_S) -> Receive:
    """A body of that many bytes whose sender counts as gone when it is silent or far too slow."""
    deadline = time.monotonic() + within_s + size / _BYTES_PER_S
    is_whole = False

    async def timely() -> Message:
        nonlocal is_whole
        if is_whole:
            return await receive()
        left = min(_SILENCE_S, deadline - time.monotonic())
        try:
            message = await asyncio.wait_for(receive(), left)
        except TimeoutError:
            return {"type": "http.disconnect"}
        is_whole = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    return timely
