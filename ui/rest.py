"""The REST interface: questions and answers as JSON, for programs. docs/rest.md says how to ask."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.datastructures import UploadFile

from clipsearch import __version__
from clipsearch.config import DEFAULT_TOP
from clipsearch.errors import (
    ClipsearchError,
    ImageError,
    LibraryLockedError,
    ModelError,
    NotInLibraryError,
    QueryError,
    UsageError,
)
from clipsearch.query import parse
from ui.models import Models
from ui.problems import problem
from ui.service import Answer, Service

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_KNOWN = (  # what may be asked where
    (re.compile("search"), "GET, POST"),
    (re.compile("info|models|items/[^/]*"), "GET"),
)
_SEARCHES_AT_ONCE, _UPLOADS_AT_ONCE = 8, 2
_MAX_FIELDS = 20
_STATUS: tuple[tuple[type[ClipsearchError], int], ...] = (
    (QueryError, 400),
    (UsageError, 400),
    (NotInLibraryError, 404),
    (ImageError, 422),
    (LibraryLockedError, 503),
    (ModelError, 503),
)


def rest_routes(service: Service, uploads: Path, root_path: str = "") -> APIRouter:
    """``/api/search``, ``/api/items/ITEM``, ``/api/info`` and ``/api/models``.

    Uploads lie in ``uploads`` until they are answered; addresses in answers begin with
    ``root_path``. Whatever goes wrong is a JSON object ``{"error": {"status": ..., "message":
    ...}}``.
    """
    router = APIRouter(prefix="/api")
    # Who waits for one of these threads holds none, so that the others are answered meanwhile.
    searching = anyio.CapacityLimiter(_SEARCHES_AT_ONCE)
    looking = anyio.CapacityLimiter(_UPLOADS_AT_ONCE)

    def found(text: str, answer: Answer) -> dict[str, Any]:
        return _found(text, answer, root_path)

    @router.get("/search")
    async def search(q: str = "", top: str = "") -> Response:
        def answer() -> Response:
            return _answered(lambda: found(q, service.search(q, top=_top(top))))

        return await run_sync(answer, limiter=searching)

    @router.post("/search")
    async def search_with_picture(request: Request, q: str = "", top: str = "") -> Response:
        if "multipart/form-data" not in request.headers.get("content-type", ""):
            return problem(415, "Send a form (multipart/form-data) with the picture in it.")
        async with request.form(max_files=1, max_fields=_MAX_FIELDS) as form:
            picture = form.get("picture")
            if not isinstance(picture, UploadFile):
                return problem(400, "Send the picture as the form's field 'picture', as a file.")

            def answer() -> Response:
                with tempfile.NamedTemporaryFile(dir=uploads, suffix=".query") as kept:
                    shutil.copyfileobj(picture.file, kept)
                    kept.flush()
                    path = Path(kept.name)
                    return _answered(
                        lambda: found(q, service.search(q, picture=path, top=_top(top)))
                    )

            return await run_sync(answer, limiter=looking)

    @router.get("/items/{item}")
    def one(item: str) -> Response:
        return _answered(lambda: _described(service, item, root_path))

    @router.get("/info")
    def info() -> Response:
        return _answered(
            lambda: {
                **asdict(service.summary()),
                **asdict(service.counts()),
                "version": __version__,
            }
        )

    @router.get("/models")
    def models() -> Response:
        return _answered(lambda: _models_told(service.models()))

    @router.api_route("/{rest:path}", methods=_METHODS)
    def other(rest: str, request: Request) -> Response:
        allowed = next((methods for path, methods in _KNOWN if path.fullmatch(rest)), None)
        if allowed is not None:
            text = f"{request.method} cannot be asked of /api/{rest}, only {allowed}."
            return problem(405, text, {"allow": allowed})
        return problem(
            404,
            f"There is no /api/{rest} here: ask /api/search, /api/items/ITEM, /api/info or "
            "/api/models.",
        )

    return router


def _answered(answer: Callable[[], dict[str, Any]]) -> Response:
    try:
        return _json(answer(), 200)
    except ClipsearchError as error:
        status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
        shown = ("line", "marked", "start", "end")  # of a mistake in a query
        place = {name: error.fields[name] for name in shown if name in error.fields}
        message = str(error.fields.get("message", error)) if place else str(error)
        return problem(status, message, kind=type(error).__name__, code=error.exit_code, **place)


def _json(content: dict[str, Any], status: int) -> Response:
    # In ASCII, so that the bytes of a path that are no UTF-8 are escapes and not a failure.
    body = json.dumps(content, default=str)
    return Response(body, status, {"cache-control": "no-store"}, media_type="application/json")


def _top(given: str) -> int:
    if not given:
        return DEFAULT_TOP
    if not given.isascii() or not given.isdigit() or len(given) > 9:
        raise UsageError(reason=f"top must be a whole number, not {given[:40]!r}")
    return int(given)


def _found(text: str, answer: Answer, root_path: str) -> dict[str, Any]:
    return {
        "query": str(parse(text)),
        "understood": answer.understood,
        "model": answer.model,
        "elapsed_s": round(answer.elapsed_s, 6),
        "total": answer.total,
        "notes": answer.notes,
        "hits": [
            {
                **asdict(hit),
                "thumb": f"{root_path}/thumb/{hit.item}",
                "view": f"{root_path}/view/{hit.item}",
            }
            for hit in answer.found
        ],
    }


def _described(service: Service, item: str, root_path: str) -> dict[str, Any]:
    if not item.isascii() or not item.isdigit() or len(item) > 15:
        raise UsageError(reason=f"An item is a number, not {item[:40]!r}")
    number = int(item)
    return {
        **asdict(service.picture(number)),
        "thumb": f"{root_path}/thumb/{number}",
        "view": f"{root_path}/view/{number}",
        "original": f"{root_path}/original/{number}",
    }


def _models_told(models: Models) -> dict[str, Any]:
    held = [{**asdict(model), "whole": model.lacking == 0} for model in models.held]
    # The fill stands beside the models: while one is being loaded it is none of them.
    return {"models": held, "fill": asdict(models.fill) if models.fill else None}
