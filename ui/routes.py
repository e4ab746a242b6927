"""Pictures over HTTP, by item number and never by path."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import Response

from clipsearch.errors import ClipsearchError, NotInLibraryError
from ui.problems import problem
from ui.sending import FileReply
from ui.service import EncodedPicture, Service

_AT_ONCE = 4  # threads that read or make pictures; whoever waits for one of them holds none
_READING = ["GET", "HEAD"]
_METHODS = [*_READING, "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_FOREVER = "private, max-age=31536000, immutable"
_ASK_AGAIN = "private, no-cache"
_PLACEHOLDER = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 320 240" width="320" height="240">'
    b'<rect width="320" height="240" fill="#8883"/><text x="160" y="126" fill="#888" '
    b'font-family="system-ui,sans-serif" font-size="18" text-anchor="middle">file not found</text>'
    b"</svg>"
)
_ICON = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" '
    b'rx="7" fill="#0d9488"/><circle cx="14" cy="14" r="6.5" fill="none" stroke="#fff" '
    b'stroke-width="3"/><path d="M19 19l6 6" stroke="#fff" stroke-width="3.4" '
    b'stroke-linecap="round"/></svg>'
)


def picture_routes(service: Service) -> APIRouter:
    """``/thumb/ITEM``, ``/view/ITEM`` (upright, screen size) and ``/original/ITEM`` (the file).

    Behind thumb and view may stand the item's version: what is there stays as it is for ever. A
    picture that is gone or unknown is a 404 that draws as a placeholder.
    """
    router = APIRouter()
    # Of their own for each: a thumbnail that is there does not wait for a panorama.
    threads = {kind: anyio.CapacityLimiter(_AT_ONCE) for kind in ("thumb", "view", "original")}

    async def encoded(
        make: Callable[[int], EncodedPicture], kind: str, item: str, version: str, request: Request
    ) -> Response:
        def answer() -> Response:
            return _encoded(service, make, kind, _number(item), version, request)

        try:
            return await run_sync(answer, limiter=threads[kind])
        except ClipsearchError:
            headers = {"cache-control": "no-store"}
            return Response(_PLACEHOLDER, 404, headers, media_type="image/svg+xml")

    @router.api_route("/thumb/{item}", methods=_READING)
    @router.api_route("/thumb/{item}/{version}", methods=_READING)
    async def thumb(item: str, request: Request, version: str = "") -> Response:
        return await encoded(service.thumbnail, "thumb", item, version, request)

    @router.api_route("/view/{item}", methods=_READING)
    @router.api_route("/view/{item}/{version}", methods=_READING)
    async def view(item: str, request: Request, version: str = "") -> Response:
        return await encoded(service.view, "view", item, version, request)

    @router.api_route("/original/{item}", methods=_READING)
    async def original(item: str, request: Request) -> Response:
        try:
            found = await run_sync(service.original, _number(item), limiter=threads["original"])
        except ClipsearchError as error:
            return problem(404 if isinstance(error, NotInLibraryError) else 410, str(error))
        return FileReply(
            found.file,
            request,
            media_type=found.media_type or "application/octet-stream",
            is_shown=found.media_type is not None,
            headers={"cache-control": _ASK_AGAIN},
        )

    def other(request: Request) -> Response:
        kind = request.url.path.removeprefix("/").split("/")[0]
        if request.method in _READING:
            return problem(404, f"There is no such address; ask /{kind}/ITEM.")
        return problem(
            405,
            f"{request.method} cannot be asked of /{kind}, only GET and HEAD.",
            {"allow": ", ".join(_READING)},
        )

    for kind in threads:
        for path in (f"/{kind}", f"/{kind}/{{rest:path}}"):
            router.add_api_route(path, other, methods=_METHODS)

    @router.get("/favicon.ico")
    def icon() -> Response:
        return Response(_ICON, media_type="image/svg+xml")

    return router


def _number(item: str) -> int:
    if not item.isascii() or not item.isdigit() or len(item) > 15:
        raise NotInLibraryError(what=f"Item {item[:40]!r}", path="", advice="Items are numbers.")
    return int(item)


def _encoded(
    service: Service,
    make: Callable[[int], EncodedPicture],
    kind: str,
    item: int,
    version: str,
    request: Request,
) -> Response:
    def described(now: str) -> dict[str, str]:
        # Item numbers mean other pictures in another library on the same port: without the version
        # of what is sent, always ask again.
        return {
            "etag": f'"{now}-{kind}"',
            "cache-control": _FOREVER if version == now else _ASK_AGAIN,
        }

    headers = described(service.version(item))
    known = [tag.strip().removeprefix("W/") for tag in _asked(request, "if-none-match").split(",")]
    if headers["etag"] in known or "*" in known:
        return Response(None, 304, headers)
    picture = make(item)
    # Of the picture that was made: the number may have gone to another one meanwhile.
    headers = described(picture.version) if picture.is_whole else {"cache-control": "no-store"}
    return Response(picture.data, 200, headers, media_type=picture.media_type)


def _asked(request: Request, header: str) -> str:
    return request.headers.get(header) or ""
