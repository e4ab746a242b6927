"""Sends an opened file, whole or one part of it: what was compared, whatever its path is by now."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from email.utils import formatdate
from urllib.parse import quote

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ui.files import OpenedFile

_CHUNK_BYTES = 256 * 1024
_UNSATISFIABLE = (-1, -1)


class FileReply(Response):
    """Sends one part of a file for ``Range`` (RFC 9110, 14), nothing for what is known already.

    Of several ranges at once the whole file is sent, as the RFC allows; ``HEAD`` has no ranges.
    Stops where the visitor has left. Closes the descriptor.
    """

    def __init__(
        self,
        file: OpenedFile,
        request: Request,
        *,
        media_type: str,
        is_shown: bool,
        headers: Mapping[str, str],
    ) -> None:
        self._file = file
        self.background = None
        size = file.status.st_size
        tag = f'"{file.status.st_mtime_ns:x}-{size:x}-{file.status.st_ino:x}"'
        modified = formatdate(file.status.st_mtime, usegmt=True)
        name = file.path.name.encode("utf-8", "replace").decode()
        said = {
            **headers,
            "accept-ranges": "bytes",
            "etag": tag,
            "last-modified": modified,
            "content-disposition": f"{'inline' if is_shown else 'attachment'}; {_named(name)}",
        }
        asked = request.headers
        start, end, status = 0, size, 200
        if _is_known(asked.get("if-none-match"), asked.get("if-modified-since"), tag, modified):
            end, status = 0, 304
        elif request.method == "GET" and asked.get("if-range", tag) in (tag, modified):
            part = _range(asked.get("range", ""), size)
            if part == _UNSATISFIABLE:
                end, status = 0, 416
                said["content-range"] = f"bytes */{size}"
            elif part is not None:
                (start, end), status = part, 206
                said["content-range"] = f"bytes {start}-{end - 1}/{size}"
        self._start, self._end = start, end
        self._has_body = request.method != "HEAD" and end > start
        if status != 304:
            said["content-length"] = str(end - start)
        self.status_code = status
        self.media_type = media_type
        self.init_headers(said)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        leaving = asyncio.ensure_future(_left(receive))
        try:
            head = {"status": self.status_code, "headers": self.raw_headers}
            await send({"type": "http.response.start", **head})
            place = self._start if self._has_body else self._end
            while place < self._end and not leaving.done():
                data = await run_sync(self._read, place)
                if not data:  # it was cut meanwhile; the connection ends short of what was said
                    return
                place += len(data)
                more = place < self._end
                await send({"type": "http.response.body", "body": data, "more_body": more})
            if not self._has_body:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            leaving.cancel()
            os.close(self._file.descriptor)

    def _read(self, place: int) -> bytes:
        os.lseek(self._file.descriptor, place, os.SEEK_SET)
        return os.read(self._file.descriptor, min(_CHUNK_BYTES, self._end - place))


async def _left(receive: Receive) -> None:
    """Waits until the visitor has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _is_known(none_match: str | None, since: str | None, tag: str, modified: str) -> bool:
    if none_match is not None:
        tags = [one.strip().removeprefix("W/") for one in none_match.split(",")]
        return tag in tags or "*" in tags
    return since == modified


def _range(asked: str, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last; None where there is none, or nothing we know."""
    unit, _, spans = asked.partition("=")
    first, dash, last = spans.partition("-")
    first, last = first.strip(), last.strip()
    if unit.strip().lower() != "bytes" or not dash or "," in spans or len(spans) > 60:
        return None
    if not all(part == "" or (part.isascii() and part.isdigit()) for part in (first, last)):
        return None
    if not first:
        if not last:
            return None
        return (max(0, size - int(last)), size) if int(last) and size else _UNSATISFIABLE
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        return _UNSATISFIABLE
    return int(first), min(size, int(last) + 1) if last else size


def _named(name: str) -> str:
    quoted = quote(name, safe="")
    return f'filename="{name}"' if quoted == name else f"filename*=utf-8''{quoted}"
