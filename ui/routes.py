"""Pictures over HTTP, by item number and never by path."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response

from clipsearch.errors import ClipsearchError, NotInLibraryError
from ui.service import EncodedPicture, Service

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

    A picture that is gone or unknown is a 404 that draws as a placeholder.
    """
    router = APIRouter()

    @router.get("/thumb/{item}")
    def thumb(item: int, request: Request) -> Response:
        return _encoded(request, lambda: service.thumbnail(item))

    @router.get("/view/{item}")
    def view(item: int, request: Request) -> Response:
        return _encoded(request, lambda: service.view(item))

    @router.get("/original/{item}")
    def original(item: int) -> Response:
        try:
            found = service.original(item)
        except ClipsearchError as error:
            status = 404 if isinstance(error, NotInLibraryError) else 410
            headers = {"cache-control": "no-store"}
            return Response(str(error), status, headers, media_type="text/plain")
        return FileResponse(
            found.path,
            media_type=found.media_type or "application/octet-stream",
            filename=found.path.name.encode("utf-8", "replace").decode(),
            content_disposition_type="inline" if found.media_type else "attachment",
            headers={"cache-control": "private, no-cache"},
        )

    @router.get("/favicon.ico")
    def icon() -> Response:
        return Response(_ICON, media_type="image/svg+xml")

    return router


def _encoded(request: Request, make: Callable[[], EncodedPicture]) -> Response:
    try:
        picture = make()
    except ClipsearchError:
        return Response(
            _PLACEHOLDER, 404, {"cache-control": "no-store"}, media_type="image/svg+xml"
        )
    # Item numbers mean other pictures in another library on the same port: always ask again.
    headers = {"etag": f'"{picture.tag}"', "cache-control": "private, no-cache"}
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(None, 304, headers)
    return Response(picture.data, 200, headers, media_type=picture.media_type)
