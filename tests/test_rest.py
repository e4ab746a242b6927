"""The REST interface: answers and errors are JSON, and the guard stands before all of it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from clipsearch.config import resolve
from clipsearch.library import Batch, FileState, Library
from clipsearch.library.fill_state import RUNNING, FillState, write_fill_state
from clipsearch.library.lock import fill_lock
from clipsearch.vectors import EmbeddingSpace
from ui import markup
from ui.rest import rest_routes
from ui.server import guarded
from ui.service import Service
from ui.uploads import MAX_UPLOAD_BYTES, Uploads

TOKEN = "a long secret"  # noqa: S105
HERE = "http://127.0.0.1:7860"


@pytest.fixture(scope="module")
def service(embedded_library: Path) -> Iterator[Service]:
    with Library.open(embedded_library) as library:
        yield Service(library, settings=resolve({}, library.settings()))


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


def client_of(service: Service, uploads: Path, token: str = "") -> TestClient:
    app = FastAPI(openapi_url=None)
    app.include_router(rest_routes(service, uploads))
    return TestClient(guarded(app, port=7860, token=token, uploads=Uploads(uploads)), base_url=HERE)


@pytest.fixture(scope="module")
def client(service: Service, uploads: Path) -> TestClient:
    return client_of(service, uploads)


def search(client: TestClient, query: str, **more: Any) -> dict[str, Any]:
    reply = client.get("/api/search", params={"q": query, **more})
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/json"
    found: dict[str, Any] = reply.json()
    return found


def test_a_query_is_answered_with_hits_and_what_was_understood(client: TestClient) -> None:
    answer = search(client, "a cat format:png limit:3 cutoff:none", top=9)
    assert answer["query"] == "a cat format:png limit:3 cutoff:none"
    assert answer["understood"] == ["a cat", "format:png", "limit:3", "cutoff:none"]
    first = answer["hits"][0]
    assert len(answer["hits"]) == 3
    assert first["probability"] > 0.5
    assert first["path"].endswith("cat.png")
    assert first["rank"] == 1
    assert 0 < first["score"] <= 1
    assert first["thumb"] == f"/thumb/{first['item']}"
    assert search(client, "a cat cutoff:none", top=2)["hits"][0]["item"] == first["item"]
    listed = search(client, "format:png")["hits"]
    assert listed
    assert all(hit["score"] is None for hit in listed)


def test_an_uploaded_picture_is_searched_by_alone_and_with_a_query(
    client: TestClient, real_photos: Path, uploads: Path
) -> None:
    data = (real_photos / "moon.png").read_bytes()

    def found(query: str) -> list[dict[str, Any]]:
        sent = {"picture": ("m.png", data, "image/png")}
        reply = client.post("/api/search", params={"q": query, "top": 3}, files=sent)
        assert reply.status_code == 200, reply.text
        hits: list[dict[str, Any]] = reply.json()["hits"]
        return hits

    assert found("")[0]["path"].endswith("moon.png")
    assert found("")[0]["score"] > 0.99
    assert all(hit["path"].endswith(".jpg") for hit in found("format:jpg cutoff:none"))
    assert list(uploads.iterdir()) == []  # nothing is kept


def test_items_and_the_library_are_described(client: TestClient) -> None:
    (hit,) = search(client, "a cat", top=1)["hits"]
    item = client.get(f"/api/items/{hit['item']}").json()
    assert item["paths"] == [hit["path"]]
    assert (item["width"], item["format"]) == (hit["width"], "PNG")
    assert item["original"] == f"/original/{hit['item']}"
    info = client.get("/api/info").json()
    assert (info["items"], info["model"], info["files"]) == (25, "embedded", 25)


def test_the_models_and_how_a_change_goes_are_told(library_copy: Library, uploads: Path) -> None:
    library = library_copy
    client = client_of(Service(library, settings=resolve({}, library.settings())), uploads)

    def told() -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
        reply = client.get("/api/models")
        assert reply.status_code == 200, reply.text
        return reply.json()["models"], reply.json()["fill"]

    active = library.active_space()
    assert active is not None
    dim = active.space.dim
    embedded = {
        "space": active.id,
        "address": "embedded",
        "state": "in use",
        "dim": dim,
        "embedded": 25,
        "lacking": 0,
        "whole": True,
        "bytes": 25 * 2 * dim,
    }
    assert told() == ([embedded], None)

    items = list(library.items(library.present_items().tolist()).values())
    hashes = [item.content_hash for item in items]
    rows = np.full((25, 4), 0.5, np.float32)
    with library.writer() as writer:
        other = writer.add_space(
            EmbeddingSpace("another", "0" * 64, "-", 4), address="another", runtime="", precision=""
        ).id
        writer.plan_switch(other)
        writer.commit(Batch(vectors=(other, hashes[:10], rows[:10])))
    state = FillState("another", RUNNING, "filling", 10, 25, 4.0, 3.75, 1)
    write_fill_state(library.path, state)
    with fill_lock(library.path):
        models, fill = told()
    assert models[0] == embedded
    asked = ("address", "state", "embedded", "lacking", "whole")
    assert [models[1][name] for name in asked] == ["another", "next", 10, 15, False]
    assert fill == vars(state)

    _, fill = told()  # nobody fills any more
    assert fill is not None
    assert (fill["state"], fill["seconds_left"]) == ("stopped", None)

    with library.writer() as writer:  # which leaves the library's revision
        writer.commit(Batch(vectors=(other, hashes[10:], rows[10:])))
    assert [one["whole"] for one in told()[0]] == [True, True]
    with library.writer() as writer:
        writer.plan_switch(None)
    assert [one["state"] for one in told()[0]] == ["in use", "kept"]
    with library.writer() as writer:
        writer.drop_space(other)
    write_fill_state(library.path, None)
    assert told() == ([embedded], None)


def test_a_library_without_models_says_so(tmp_path: Path, uploads: Path) -> None:
    with Library.open(tmp_path / "new.clipsearch", create=True) as library:
        client = client_of(Service(library, settings=resolve({}, library.settings())), uploads)
        assert client.get("/api/models").json() == {"models": [], "fill": None}


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/api/search", 400, "QueryError"),
        ("/api/search?q=%20", 400, "QueryError"),
        ("/api/search?q=image:/etc/passwd", 400, "QueryError"),
        ("/api/search?q=image:%23999999", 404, "NotInLibraryError"),
        ("/api/search?q=cat&top=many", 400, "UsageError"),
        ("/api/search?q=cat&top=0", 400, "UsageError"),
        ("/api/search?q=cat&top=99999", 400, "UsageError"),
        ("/api/items/999999", 404, "NotInLibraryError"),
        ("/api/items/1e3", 400, "UsageError"),
        ("/api/nothing", 404, None),
    ],
)
def test_errors_are_json_with_status_and_message(
    client: TestClient, path: str, status: int, kind: str | None
) -> None:
    reply = client.get(path)
    error = reply.json()["error"]
    assert (reply.status_code, error["status"], error.get("kind")) == (status, status, kind)
    assert error["message"]


def test_a_mistake_tells_its_place(client: TestClient) -> None:
    error = client.get("/api/search", params={"q": "dog camra:canon"}).json()["error"]
    assert (error["start"], error["end"], error["code"]) == (4, 10, 50)
    assert (error["line"], error["marked"]) == ("dog camra:canon", "    ^^^^^^")
    assert "camera:" in error["message"]
    assert "\n" not in error["message"]


@pytest.mark.parametrize("query", ["🐈", "日本語", '"', "x" * 10_000, "a\0b", "' OR 1=1 --", "%"])
def test_strange_words_are_only_words(client: TestClient, query: str) -> None:
    assert len(search(client, f"cutoff:none {query}", top=2)["hits"]) == 2
    search(client, query, top=2)  # answers, with hits or without


def test_bad_uploads_are_refused(client: TestClient, uploads: Path) -> None:
    whole = io.BytesIO()
    Image.new("RGB", (10, 10)).save(whole, "PNG")
    for data in (b"not a picture", whole.getvalue()[:40]):
        reply = client.post("/api/search", files={"picture": ("x.jpg", data)})
        assert (reply.status_code, reply.json()["error"]["kind"]) == (422, "ImageUnreadableError")
        assert str(uploads) not in reply.text
    reply = client.post("/api/search", params={"q": "cat"}, files={"other": b"x"})
    assert (reply.status_code, reply.json()["error"]["status"]) == (400, 400)
    for headers, status in (
        ({"content-length": str(MAX_UPLOAD_BYTES + 1)}, 413),
        ({"transfer-encoding": "chunked"}, 411),
    ):
        parts = iter([b"x"])
        reply = client.post("/api/search", content=parts, headers=headers)
        assert (reply.status_code, reply.json()["error"]["status"]) == (status, status)
    assert list(uploads.iterdir()) == []


def test_the_guard_refuses_in_json(service: Service, uploads: Path) -> None:
    locked = client_of(service, uploads, TOKEN)
    reply = locked.get("/api/info")
    assert (reply.status_code, reply.json()["error"]["status"]) == (401, 401)
    assert "www-authenticate" in reply.headers
    assert locked.post("/api/search", files={"picture": b"x"}).status_code == 401
    known = {"Authorization": f"Bearer {TOKEN}"}
    assert locked.get("/api/info", headers=known).status_code == 200
    client = client_of(service, uploads)
    foreign = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    for reply in (
        client.get("/api/search?q=cat", headers=foreign),
        client.post("/api/search", headers=foreign, files={"picture": b"x"}),
        client.get("/api/info", headers={"host": "evil.example"}),
    ):
        assert reply.status_code in (403, 421)
        assert reply.json()["error"]["message"]


def test_paths_that_are_no_text_can_be_told(library_copy: Library, uploads: Path) -> None:
    """A file name of arbitrary bytes is an escape in JSON, and the page's HTML holds it, too."""
    library = library_copy
    root = library.roots()[0]
    item = library.item_at(root.path / "cat.png")
    assert item is not None
    content = library.items([item])[item].content_hash
    with library.writer() as writer:
        state = FileState(root.id, "\udcff.png", 1, 1, 1, content)
        writer.commit(Batch(files=[state]))
    service = Service(library, settings=resolve({}, library.settings()))
    client = client_of(service, uploads)
    (hit,) = search(client, "name:cat limit:1")["hits"]
    shown = client.get(f"/api/items/{hit['item']}").json()
    assert any(name.endswith("\udcff.png") for name in shown["paths"])
    answer = service.search("a cat -dog format:png", top=2)
    assert "<code>-dog</code>" in markup.answered(answer)
