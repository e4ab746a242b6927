"""Errors over HTTP, all in the one shape that docs/rest.md promises."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_MOST_BYTES = 64 * 1024
_GRADIO = "/gradio_api/"


def problem(
    status: int, message: str, headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    """An error as JSON, in ASCII: the bytes of a path that are no UTF-8 are escapes."""
    body = json.dumps({"error": {"status": status, "message": message, **more}}, default=str)
    said = {"cache-control": "no-store", **(headers or {})}
    return Response(body, status, said, media_type="application/json")


class InOneShape:
    """ASGI middleware that gives the frameworks' own errors the shape of ours.

    Pictures that stand for an error and the page itself stay as they are.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        body = bytearray()
        began = False

        async def shaped(message: Message) -> None:
            nonlocal start, began
            if message["type"] == "http.response.start":
                if message["status"] < 400 or not _is_theirs(Headers(raw=message["headers"])):
                    began = True
                    await send(message)
                    return
                start = message
                return
            if start is None:
                await send(message)
                return
            body.extend(message.get("body", b"")[: _MOST_BYTES - len(body)])
            if message.get("more_body", False):
                return
            answer = _shaped(start, bytes(body), keeps_detail=scope["path"].startswith(_GRADIO))
            began = True
            await answer(scope, receive, send)

        try:
            await self._app(scope, receive, shaped)
        except Exception:
            if began:
                raise
            text = "Something went wrong here; the terminal that runs clipsearch says more."
            await problem(500, text)(scope, receive, send)
            raise


def _is_theirs(headers: Headers) -> bool:
    kind = headers.get("content-type", "").split(";")[0]
    return kind in ("application/json", "text/plain", "")


def _shaped(start: Message, body: bytes, *, keeps_detail: bool) -> Response:
    status: int = start["status"]
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = body.decode("utf-8", "replace")
    if isinstance(said, dict) and isinstance(said.get("error"), dict):
        answer = Response(body, status)
    else:
        detail = said.get("detail", said) if isinstance(said, dict) else said
        answer = problem(status, _message(status, detail))
        if keeps_detail:  # the page's scripts look for it
            told = {**json.loads(bytes(answer.body)), "detail": detail}
            answer = Response(json.dumps(told, default=str), status)
    kept = MutableHeaders(raw=list(start["headers"]))
    del kept["content-length"], kept["content-type"]
    answer.headers.update(kept)
    answer.headers["content-type"] = "application/json"
    return answer


def _message(status: int, detail: object) -> str:
    """In words: what the framework says, or of a list of its findings which field each is about."""
    if isinstance(detail, list):
        found = [one for one in detail if isinstance(one, dict)]
        parts = [f"{_field(one.get('loc'))}: {one.get('msg', 'not valid')}" for one in found[:5]]
        if parts:
            return "; ".join(parts)
    if isinstance(detail, str) and detail.strip():
        return detail.strip()
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Error {status}"


def _field(place: object) -> str:
    if isinstance(place, (list, tuple)) and place:
        return " ".join(str(part) for part in place[1:] or place)
    return "the request"
