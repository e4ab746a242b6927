"""The REST interface: questions and answers as JSON, for programs. docs/rest.md says how to ask."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import APIRouter, UploadFile
from fastapi.responses import Response

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
from ui.service import Answer, Service

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_STATUS: tuple[tuple[type[ClipsearchError], int], ...] = (
    (QueryError, 400),
    (UsageError, 400),
    (NotInLibraryError, 404),
    (ImageError, 422),
    (LibraryLockedError, 503),
    (ModelError, 503),
)


def rest_routes(service: Service, uploads: Path) -> APIRouter:
    """``/api/search``, ``/api/items/ITEM``, ``/api/info`` and ``/api/models``.

    Uploads lie in ``uploads`` until they are answered. Whatever goes wrong is a JSON object
    ``{"error": {"status": ..., "message": ...}}``.
    """
    router = APIRouter(prefix="/api")

    @router.get("/search")
    def search(q: str = "", top: str = "") -> Response:
        return _answered(lambda: _found(q, service.search(q, top=_top(top))))

    @router.post("/search")
    def search_with_picture(
        picture: UploadFile | None = None, q: str = "", top: str = ""
    ) -> Response:
        if picture is None:
            return refusal(400, "Send the picture as the form's field 'picture'.")
        with tempfile.NamedTemporaryFile(dir=uploads, suffix=".query") as kept:
            shutil.copyfileobj(picture.file, kept)
            kept.flush()
            path = Path(kept.name)
            return _answered(lambda: _found(q, service.search(q, picture=path, top=_top(top))))

    @router.get("/items/{item}")
    def one(item: str) -> Response:
        return _answered(lambda: _described(service, item))

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
    def other(rest: str) -> Response:
        return refusal(
            404,
            f"There is no /api/{rest} here: ask /api/search, /api/items/ITEM, /api/info or "
            "/api/models.",
        )

    return router


def refusal(status: int, message: str, **more: Any) -> Response:
    """An error as JSON."""
    return _json({"error": {"status": status, "message": message, **more}}, status)


def _answered(answer: Callable[[], dict[str, Any]]) -> Response:
    try:
        return _json(answer(), 200)
    except ClipsearchError as error:
        status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
        shown = ("line", "marked", "start", "end")  # of a mistake in a query
        place = {name: error.fields[name] for name in shown if name in error.fields}
        message = str(error.fields.get("message", error)) if place else str(error)
        return refusal(status, message, kind=type(error).__name__, code=error.exit_code, **place)


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


def _found(text: str, answer: Answer) -> dict[str, Any]:
    return {
        "query": str(parse(text)),
        "understood": answer.understood,
        "notes": answer.notes,
        "model": answer.model,
        "elapsed_s": round(answer.elapsed_s, 6),
        "hits": [
            {**asdict(hit), "thumb": f"/thumb/{hit.item}", "view": f"/view/{hit.item}"}
            for hit in answer.found
        ],
    }


def _described(service: Service, item: str) -> dict[str, Any]:
    if not item.isascii() or not item.isdigit() or len(item) > 15:
        raise UsageError(reason=f"An item is a number, not {item[:40]!r}")
    number = int(item)
    return {
        **asdict(service.picture(number)),
        "thumb": f"/thumb/{number}",
        "view": f"/view/{number}",
        "original": f"/original/{number}",
    }


def _models_told(models: Models) -> dict[str, Any]:
    held = [{**asdict(model), "whole": model.lacking == 0} for model in models.held]
    # The fill stands beside the models: while one is being loaded it is none of them.
    return {"models": held, "fill": asdict(models.fill) if models.fill else None}
