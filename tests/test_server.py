"""The server: who gets in, what is served by item number, and that nothing else is."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import quote

import pytest
import uvicorn
from PIL import Image
from serving import Reply, Served, index, running_server
from starlette.requests import Request
from uvicorn.server import ServerState

from ui.connections import MAX_CONNECTIONS, PatientProtocol
from ui.files import OpenedFile
from ui.limits import MAX_STREAMS_OF_ONE
from ui.questions import MAX_OF_SESSION, MAX_UNREAD
from ui.sending import FileReply
from ui.uploads import MAX_BYTES, MAX_UPLOAD_BYTES, Uploads, remove_orphans, uploads_folder
from ui.views import ViewCache

TOKEN = "correct horse/battery&staple"  # noqa: S105
EVERYWHERE = "0.0.0.0"  # noqa: S104
Cli = Callable[..., subprocess.CompletedProcess[str]]


def make_photos(folder: Path) -> None:
    """A plain picture, one that is stored lying on its side, and one browsers cannot show."""
    folder.mkdir()
    Image.new("RGB", (64, 48), "red").save(folder / "plain.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x0110] = "Box 1"
    Image.new("RGB", (80, 40), "green").save(folder / "sideways.jpg", exif=exif)
    Image.new("RGB", (2000, 1000), "blue").save(folder / "scan.tif")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    """A folder with ``photos`` and their library ``test.clipsearch``."""
    place = tmp_path_factory.mktemp("served")
    make_photos(place / "photos")
    index(place / "test.clipsearch", place / "photos", f"local-dir:{tiny_model_dir}")
    return place


@pytest.fixture(scope="module")
def open_server(place: Path) -> Iterator[Served]:
    with running_server(place / "test.clipsearch") as served:
        yield served


@pytest.fixture(scope="module")
def locked_server(place: Path) -> Iterator[Served]:
    secret = {"CLIPSEARCH_TOKEN": TOKEN}
    flags = ("--host", EVERYWHERE, "--trusted-proxy", "127.0.0.1")
    with running_server(place / "test.clipsearch", *flags, environment=secret) as served:
        yield served


def items(place: Path) -> dict[str, int]:
    """File name -> item number."""
    from clipsearch import open_library

    with open_library(place / "test.clipsearch") as library:
        found = {
            path.name: library.item_at(path.absolute()) for path in (place / "photos").iterdir()
        }
    return {name: item for name, item in found.items() if item is not None}


# --- starting and stopping ------------------------------------------------------------------


def test_help_needs_no_gradio() -> None:
    program = (
        "import sys; from clipsearch.cli import main; code = main(['serve', '--help']);"
        "assert code == 0 and not {'gradio', 'torch', 'fastapi'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_beyond_this_machine_only_with_a_token(place: Path, run_cli: Cli) -> None:
    library = place / "test.clipsearch"
    done = run_cli("serve", "--library", library, "--host", EVERYWHERE, "--port", "0")
    assert done.returncode == 82
    assert "--token" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_taken_port_is_named_with_a_free_one(place: Path, run_cli: Cli) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_cli("serve", "--library", place / "test.clipsearch", "--port", port)
    assert done.returncode == 81
    assert f"Port {port}" in done.stderr
    suggestion = int(done.stderr.rsplit(" ", 1)[1])
    with socket.socket() as free:
        free.bind(("127.0.0.1", suggestion))


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (["--port", "70000"], 2),
        (["--host", "no.such.host.invalid", "--token", "long enough for it"], 80),
        (["--library", "nowhere.clipsearch"], 21),
    ],
)
def test_what_cannot_be_served_is_one_line(
    place: Path, run_cli: Cli, flags: list[str], code: int
) -> None:
    given = [] if "--library" in flags else ["--library", place / "test.clipsearch"]
    done = run_cli("serve", *given, *flags)
    assert done.returncode == code, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_stopping_is_clean_and_leaves_no_upload(
    place: Path, tmp_path: Path, by: signal.Signals
) -> None:
    with running_server(place / "test.clipsearch", environment={"TMPDIR": str(tmp_path)}) as served:
        upload(served, b"private")
        assert list(tmp_path.rglob("query.jpg"))
        code = served.stop(by)
    assert code == 130
    assert "Traceback" not in "".join(served.lines)
    assert not list(tmp_path.glob("clipsearch-uploads-*"))


# --- pictures by item number ----------------------------------------------------------------


def test_thumbnails_and_views_are_upright_and_plain(open_server: Served, place: Path) -> None:
    item = items(place)["sideways.jpg"]
    for route, kind in ((f"/thumb/{item}", "JPEG"), (f"/view/{item}", "JPEG")):
        reply = open_server.ask(route)
        picture = Image.open(io.BytesIO(reply.body))
        assert reply.status == 200
        assert (picture.format, picture.size) == (kind, (40, 80))
        assert not picture.getexif()
        assert reply.headers["content-type"] == f"image/{kind.lower()}"


def test_what_browsers_cannot_show_is_shown_all_the_same(open_server: Served, place: Path) -> None:
    item = items(place)["scan.tif"]
    view = Image.open(io.BytesIO(open_server.ask(f"/view/{item}").body))
    assert (view.format, view.size) == ("JPEG", (1600, 800))
    original = open_server.ask(f"/original/{item}")
    assert original.body == (place / "photos" / "scan.tif").read_bytes()
    assert original.headers["content-disposition"].startswith("attachment")
    assert original.headers["content-type"] == "application/octet-stream"


def test_originals_of_browser_formats_are_the_file_itself(open_server: Served, place: Path) -> None:
    reply = open_server.ask(f"/original/{items(place)['plain.png']}")
    assert reply.body == (place / "photos" / "plain.png").read_bytes()
    assert reply.headers["content-type"] == "image/png"
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_an_unchanged_thumbnail_is_not_sent_twice(open_server: Served, place: Path) -> None:
    route = f"/thumb/{items(place)['plain.png']}"
    first = open_server.ask(route)
    again = open_server.ask(route, {"If-None-Match": first.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    assert "no-cache" in first.headers["cache-control"]


def test_deleted_thumbnails_are_made_again(open_server: Served, place: Path) -> None:
    shutil.rmtree(place / "test.clipsearch" / "thumbs", ignore_errors=True)
    reply = open_server.ask(f"/thumb/{items(place)['scan.tif']}")
    width, height = Image.open(io.BytesIO(reply.body)).size
    assert (240 <= width <= 320, width) == (True, 2 * height)


def test_what_is_gone_is_a_placeholder(open_server: Served, place: Path) -> None:
    item = items(place)["scan.tif"]
    hidden = place / "scan.tif"
    (place / "photos" / "scan.tif").rename(hidden)
    shutil.rmtree(place / "test.clipsearch" / "views", ignore_errors=True)
    try:
        for route in (f"/view/{item}", "/thumb/999999", "/view/999999"):
            reply = open_server.ask(route)
            assert reply.status == 404
            assert reply.headers["content-type"] == "image/svg+xml"
            assert reply.headers["cache-control"] == "no-store"
        assert open_server.ask(f"/original/{item}").status == 410
        assert open_server.ask("/original/999999").status == 404
    finally:
        hidden.rename(place / "photos" / "scan.tif")
    assert open_server.ask("/thumb/..%2f..%2flibrary.db").status in (404, 422)


# --- nothing else ---------------------------------------------------------------------------


def upload(served: Served, data: bytes, headers: dict[str, str] | None = None) -> str:
    """Puts a file into the server's own upload folder, as the drop zone does; its path there."""
    body = (
        b'--X\r\nContent-Disposition: form-data; name="files"; filename="query.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n" + data + b"\r\n--X--\r\n"
    )
    kind = {"Content-Type": "multipart/form-data; boundary=X", **(headers or {})}
    reply = served.ask("/gradio_api/upload", kind, method="POST", body=body)
    assert reply.status == 200, reply.body
    path: str = json.loads(reply.body)[0]
    return path


def test_uploads_can_be_seen_again_and_no_other_file(open_server: Served, place: Path) -> None:
    sent = upload(open_server, b"not really a picture")
    assert open_server.ask(f"/gradio_api/file={sent}").body == b"not really a picture"
    uploads = Path(sent).parents[1]
    for path in (
        "/etc/passwd",
        place / "test.clipsearch" / "library.db",
        place / "photos" / "plain.png",
        f"{uploads}/../../etc/passwd",
        "http://127.0.0.1:1/x",
        "https://example.org/x",
        "relative.txt",
        "/etc/pass\0wd",
    ):
        for spelled in (quote(str(path)), quote(str(path), safe="")):
            reply = open_server.ask(f"/gradio_api/file={spelled}")
            assert reply.status == 403, path
            assert b"root:" not in reply.body


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/proxy=https://example.org/",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/vibe-code/",
        "/gradio_api/openapi.json",
        "/gradio_api/run/search",
        "/gradio_api/runs",
        "/custom_component/1/server/component/x",
        "/monitoring",
        "/login",
        "/docs",
        "/openapi.json",
        "/library.db",
    ],
)
def test_the_rest_of_the_framework_is_not_served(open_server: Served, path: str) -> None:
    assert open_server.ask(path).status == 403
    assert open_server.ask(path, method="POST", body=b"{}").status in (403, 405)


def asked(served: Served, question: dict[str, object]) -> Reply:
    return served.ask(
        "/gradio_api/queue/join",
        {"Content-Type": "application/json"},
        method="POST",
        body=json.dumps(question).encode(),
    )


def test_a_question_cannot_name_a_file_of_this_machine(open_server: Served, place: Path) -> None:
    config = json.loads(open_server.ask("/config").body)
    (function,) = [
        entry["id"] for entry in config["dependencies"] if len(entry.get("inputs", [])) == 3
    ]
    data = (place / "photos" / "plain.png").read_bytes()
    sent = upload(open_server, data)
    uploads = Path(sent).parents[1]
    before = sorted(uploads.rglob("*"))

    def file(path: str) -> dict[str, object]:
        return {"path": path, "url": path, "meta": {"_type": "gradio.FileData"}}

    for path in (
        str(place / "photos" / "plain.png"),
        "/etc/passwd",
        f"{uploads}/../../etc/passwd",
        "http://127.0.0.1:1/x.png",
        "https://example.org/x.png",
    ):
        for inputs in (
            ["", file(path), 25],
            [file(path), None, 25],
            ["", None, [{"a": file(path)}]],
        ):
            question = {"data": inputs, "fn_index": function, "session_hash": "s"}
            assert asked(open_server, question).status == 403, inputs
    assert sorted(uploads.rglob("*")) == before
    question = {"data": ["", file(sent), 25], "fn_index": function, "session_hash": "s"}
    assert asked(open_server, question).status == 200
    assert b"cs-hit" in open_server.ask("/gradio_api/queue/data?session_hash=s").body


def test_a_question_that_is_no_question_is_refused(open_server: Served) -> None:
    for body, status in ((b"{", 400), (b"[" * 100_000, 400), (b" " * 200_001, 413)):
        reply = open_server.ask("/gradio_api/queue/join", method="POST", body=body)
        assert reply.status == status
    assert open_server.ask("/").status == 200


def test_foreign_names_and_foreign_pages_are_refused(open_server: Served, place: Path) -> None:
    port = open_server.port
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1.evil.example",
        "192.168.1.5",
        "",
    ):
        assert open_server.ask("/", {"Host": host}).status == 421, host
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", "[::1]:80", "LOCALHOST"):
        assert open_server.ask("/", {"Host": host}).status == 200, host
    post = {"method": "POST", "body": b"{}"}
    for origin in ("https://evil.example", "null", f"http://127.0.0.1:{port + 1}", "http://[x", ""):
        refused = open_server.ask("/gradio_api/queue/join", {"Origin": origin}, **post)
        assert refused.status == 403, origin
    own = {"Origin": f"http://127.0.0.1:{port}", "Content-Type": "application/json"}
    assert open_server.ask("/gradio_api/queue/join", own, **post).status not in (401, 403)
    thumb = f"/thumb/{items(place)['plain.png']}"
    for site in ("cross-site", "same-site"):
        inside = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
        assert open_server.ask(thumb, inside).status == 403
        frame = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
        assert open_server.ask("/", frame).status == 403
        link = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        assert open_server.ask("/", link).status == 200
    assert "frame-ancestors 'none'" in open_server.ask("/").headers["content-security-policy"]


# --- attacks --------------------------------------------------------------------------------


def search_function(served: Served) -> int:
    config = json.loads(served.ask("/config").body)
    (function,) = [
        entry["id"] for entry in config["dependencies"] if len(entry.get("inputs", [])) == 3
    ]
    return int(function)


def is_answered(served: Served, function: int, session: str) -> bool:
    question = {"data": ["format:png", None, 25], "fn_index": function, "session_hash": session}
    if asked(served, question).status != 200:
        return False
    return b"cs-hit" in served.ask(f"/gradio_api/queue/data?session_hash={session}").body


def test_questions_that_nobody_reads_keep_no_one_waiting(open_server: Served) -> None:
    """More of them than are kept: those that were given up must not end the queue."""
    function = search_function(open_server)
    connection = http.client.HTTPConnection("127.0.0.1", open_server.port, timeout=30)
    for number in range(MAX_UNREAD + 40):
        question = {"data": ["x", None, 1], "fn_index": function, "session_hash": f"u{number}"}
        kind = {"Content-Type": "application/json"}
        connection.request("POST", "/gradio_api/queue/join", json.dumps(question), kind)
        assert connection.getresponse().read()
        if number == MAX_UNREAD // 2:
            assert is_answered(open_server, function, "during")
    connection.close()
    assert is_answered(open_server, function, "after")


def test_the_answers_of_an_unknown_session_end_in_words(open_server: Served) -> None:
    reply = open_server.ask("/gradio_api/queue/data?session_hash=nobody")
    assert b"session_not_found" in reply.body
    time.sleep(0.1)
    assert "Traceback" not in "".join(open_server.lines)


def test_one_session_cannot_fill_the_queue(open_server: Served) -> None:
    function = search_function(open_server)
    question = {"data": ["x", None, 1], "fn_index": function, "session_hash": "greedy"}
    statuses = [asked(open_server, question).status for _ in range(MAX_OF_SESSION + 2)]
    assert statuses == [200] * MAX_OF_SESSION + [503] * 2
    assert is_answered(open_server, function, "another")


def test_open_streams_end_when_they_are_too_many(open_server: Served) -> None:
    with ExitStack() as held:
        streams = []
        for number in range(MAX_STREAMS_OF_ONE + 5):
            address = ("127.0.0.1", open_server.port)
            streams.append(held.enter_context(socket.create_connection(address, timeout=10)))
            head = f"GET /gradio_api/heartbeat/h{number} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
            streams[-1].sendall(head.encode())
            assert b"200" in streams[-1].recv(100)
        told = b""
        while not told.endswith(b"0\r\n\r\n"):  # the oldest says its end
            told += streams[0].recv(1000)
        assert is_answered(open_server, search_function(open_server), "beside")


def test_connections_that_say_nothing_make_way(open_server: Served) -> None:
    with ExitStack() as held:
        for _ in range(MAX_CONNECTIONS + 20):
            address = ("127.0.0.1", open_server.port)
            silent = held.enter_context(socket.create_connection(address, timeout=10))
            silent.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")  # and no end of the head
        assert is_answered(open_server, search_function(open_server), "crowd")


def test_requests_that_never_end_make_way(open_server: Served) -> None:
    """All places are taken by bodies that do not come: the next visitor is answered."""
    with ExitStack() as held:
        for _ in range(MAX_CONNECTIONS + 20):
            address = ("127.0.0.1", open_server.port)
            slow = held.enter_context(socket.create_connection(address, timeout=10))
            slow.sendall(
                b"POST /gradio_api/queue/join HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
            )
        time.sleep(0.5)  # until the server has taken up all of them
        assert is_answered(open_server, search_function(open_server), "slow-crowd")


def test_a_request_that_never_ends_its_head_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.connections.HEAD_S", 0.2)

    async def app(scope: object, receive: object, send: Callable[..., Awaitable[None]]) -> None:
        await asyncio.sleep(0.4)  # an answer may take longer than a head
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def talk() -> tuple[bytes, list[bytes]]:
        config = uvicorn.Config(app, http=PatientProtocol, lifespan="off")
        config.load()
        state = ServerState()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: PatientProtocol(config, state, {}), "127.0.0.1")
        port = server.sockets[0].getsockname()[1]
        whole, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        ended = []
        for begun in (b"", b"GET / HTTP/1.1\r\nHo"):
            reader, other = await asyncio.open_connection("127.0.0.1", port)
            other.write(begun)
            with suppress(ConnectionError):
                ended.append(await asyncio.wait_for(reader.read(), 5))
            other.close()
        answer = await asyncio.wait_for(whole.readline(), 5)
        writer.close()
        server.close()
        return answer, ended

    answer, ended = asyncio.run(talk())
    assert b"204" in answer
    assert all(said == b"" for said in ended)


def test_an_upload_that_is_a_folder_is_no_file(open_server: Served) -> None:
    """Clean-up would stumble over it and never clean up again."""
    sent = Path(upload(open_server, b"something"))
    function = search_function(open_server)
    inside = sent.parents[1] / "in-use.lock"
    link = sent.with_name("link.jpg")
    link.symlink_to("/etc/hostname")
    for path in (sent.parent, sent.parents[1], inside, link, sent.with_name("none.jpg")):
        file = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
        question = {"data": ["", file, 5], "fn_index": function, "session_hash": "f"}
        assert asked(open_server, question).status == 403, path
        assert open_server.ask(f"/gradio_api/file={path}").status == 403
    link.unlink()


def test_the_limit_of_an_upload_is_for_all_that_is_in_it(open_server: Served) -> None:
    for headers, status in (
        ({"Content-Length": str(MAX_UPLOAD_BYTES + 1)}, 413),
        ({"Transfer-Encoding": "chunked"}, 411),
    ):
        for path in ("/gradio_api/upload", "/gradio_api/upload/", "/api/search"):
            kind = {"Content-Type": "multipart/form-data; boundary=X"}
            reply = open_server.ask(path, {**kind, **headers}, method="POST", body=b"")
            assert (reply.status, json.loads(reply.body)["error"]["status"]) == (status, status)


def test_uploads_have_a_limit_together_and_an_age(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = Uploads(tmp_path, max_bytes=1000)
    old, new = tmp_path / "a" / "old.jpg", tmp_path / "b" / "new.jpg"
    for file in (old, new):
        file.parent.mkdir()
        file.write_bytes(b"x" * 400)
    with uploads.reserved(300) as granted, uploads.reserved(1) as more:
        assert (granted, more) == (False, True)  # nothing is old enough to make way
    (tmp_path / "c").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path)
    uploads.sweep(age_s=-1)
    assert not old.exists()
    assert not new.exists()
    assert not (tmp_path / "c").exists()
    with uploads.reserved(600) as granted, uploads.reserved(600) as more:
        assert (granted, more) == (True, False)
    monkeypatch.setattr("ui.uploads._MAX_FILES", 2)
    (tmp_path / "1").touch()
    with uploads.reserved(1) as granted:
        assert granted
    (tmp_path / "2").touch()
    with uploads.reserved(1) as granted:
        assert not granted


def test_slow_uploads_of_one_visitor_leave_room_for_others(locked_server: Served) -> None:
    form = (
        "POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {TOKEN}\r\nX-Forwarded-For: 10.9.9.9\r\n"
        "Content-Type: multipart/form-data; boundary=X\r\n"
    )
    right = {"Authorization": f"Bearer {TOKEN}"}
    sizes = [MAX_UPLOAD_BYTES, MAX_UPLOAD_BYTES, 100 * 2**20, 12 * 2**20]
    assert sum(sizes) * 2 == MAX_BYTES  # all there is room for, while two copies lie on the disk
    with ExitStack() as held:
        slow = []
        for size in sizes:
            address = ("127.0.0.1", locked_server.port)
            slow.append(held.enter_context(socket.create_connection(address, timeout=10)))
            slow[-1].sendall(f"{form}Content-Length: {size}\r\n\r\n--X\r\n".encode())
        assert upload(locked_server, b"x" * 2**20, {**right, **from_client(990)})
        answer = slow[1].recv(1000)
    assert b" 503 " in answer
    assert b"retry-after" in answer


def test_uploads_of_a_server_that_died_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead = tmp_path / "clipsearch-uploads-dead"
    dead.mkdir()
    (dead / "in-use.lock").touch()
    (dead / "private.jpg").write_bytes(b"x")
    elsewhere = tmp_path / "photos"
    elsewhere.mkdir()
    (tmp_path / "clipsearch-uploads-link").symlink_to(elsewhere)
    with uploads_folder() as living:
        (living.folder / "mine.jpg").write_bytes(b"x")
        assert not dead.exists()
        remove_orphans(tmp_path)
        assert (living.folder / "mine.jpg").exists()
    assert not living.folder.exists()
    assert elsewhere.exists()


def test_what_lies_at_the_path_of_an_original_is_compared(open_server: Served, place: Path) -> None:
    """A photo that is something else by now is not served, whatever route asks for it."""
    item, photo = items(place)["plain.png"], place / "photos" / "plain.png"
    kept, secret = place / "kept.png", place / "secret.txt"
    original = photo.read_bytes()
    secret.write_bytes(b"s" * len(original))
    photo.rename(kept)
    os.utime(secret, ns=(kept.stat().st_atime_ns, kept.stat().st_mtime_ns))
    caches = [place / "test.clipsearch" / name for name in ("thumbs", "views")]
    try:
        for put in (
            lambda: photo.symlink_to(secret),
            lambda: photo.symlink_to(place / "test.clipsearch" / "library.db"),
            lambda: shutil.copy2(secret, photo),
            lambda: os.mkfifo(photo),
            photo.mkdir,
        ):
            put()
            for cache in caches:
                shutil.rmtree(cache, ignore_errors=True)
            for headers in ({}, {"Range": "bytes=0-9"}, {"If-Modified-Since": "x"}):
                reply = open_server.ask(f"/original/{item}", headers)
                assert (reply.status, b"sss" in reply.body) == (410, False)
                assert json.loads(reply.body)["error"]["status"] == 410
            assert open_server.ask(f"/original/{item}", method="HEAD").status == 410
            assert open_server.ask(f"/view/{item}").status == 404
            assert open_server.ask(f"/thumb/{item}").status == 404
            photo.rmdir() if photo.is_dir() else photo.unlink()
        shutil.copyfile(kept, photo)  # another inode and time, as after a mount: the same content
        assert open_server.ask(f"/original/{item}").body == original
        photo.unlink()
        (place / "photos").rename(place / "moved")
        (place / "photos").symlink_to(place / "moved")  # a folder that is a link by now
        kept.rename(place / "moved" / "plain.png")
        assert open_server.ask(f"/original/{item}").body == original
    finally:
        if (place / "photos").is_symlink():
            (place / "photos").unlink()
            (place / "moved").rename(place / "photos")
        if kept.exists():
            photo.unlink(missing_ok=True)
            kept.rename(photo)


def test_an_original_is_sent_in_parts_and_once(open_server: Served, place: Path) -> None:
    path = f"/original/{items(place)['plain.png']}"
    data = (place / "photos" / "plain.png").read_bytes()
    for asked_for, status, body in (
        ("bytes=0-", 206, data),
        ("bytes=-5", 206, data[-5:]),
        ("bytes=3-3", 206, data[3:4]),
        (f"bytes=0-{10**20}", 206, data),
        (f"bytes={len(data)}-", 416, b""),
        ("bytes=-0", 416, b""),
        ("bytes=5-1", 200, data),
        ("bytes=" + "0-," * 5000 + "0-", 200, data),
        ("pages=1-2", 200, data),
        ("bytes=x-y", 200, data),
    ):
        reply = open_server.ask(path, {"Range": asked_for})
        assert (reply.status, reply.body) == (status, body), asked_for
    first = open_server.ask(path, method="HEAD")
    assert (first.body, first.headers["content-length"]) == (b"", str(len(data)))
    tag = first.headers["etag"]
    for known in ({"If-None-Match": tag}, {"If-Modified-Since": first.headers["last-modified"]}):
        assert open_server.ask(path, known).status == 304
    other = {"Range": "bytes=0-1", "If-Range": '"another"'}
    assert open_server.ask(path, other).status == 200

    ranged = open_server.ask(path, {"Range": "bytes=0-1"}, method="HEAD")
    assert (ranged.status, ranged.headers["content-length"]) == (200, str(len(data)))


def test_a_file_is_not_read_on_after_its_visitor_has_left(tmp_path: Path) -> None:
    """A player that seeks leaves one answer for the next: films are not read to their ends."""
    film = tmp_path / "film.mp4"
    with film.open("wb") as file:
        file.truncate(2**30)
    descriptor = os.open(film, os.O_RDONLY)
    scope = {"type": "http", "method": "GET", "headers": []}
    opened = OpenedFile(film, descriptor, os.fstat(descriptor))
    reply = FileReply(opened, Request(scope), media_type="video/mp4", is_shown=True, headers={})
    messages = []

    async def send(message: dict[str, object]) -> None:
        messages.append(message)

    async def receive() -> dict[str, object]:
        while len(messages) < 3:
            await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    asyncio.run(reply(scope, receive, send))
    assert len(messages) < 100
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_views_are_the_only_files_that_make_way_for_views(tmp_path: Path) -> None:
    """``views`` may be a link to a larger disk, with other files on it."""
    elsewhere = tmp_path / "elsewhere"
    others = [elsewhere / "ab" / "photo.jpg", elsewhere / "2024" / f"{'ab' * 16}.jpg"]
    for path in others:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * 1000)
    library = tmp_path / "library"
    library.mkdir()
    (library / "views").symlink_to(elsewhere)
    views = ViewCache(library, max_bytes=1500)
    for number in range(4):
        views.keep(f"{number:02x}" * 16, b"v" * 600)
        os.utime(elsewhere / f"{number:02x}" / f"{f'{number:02x}' * 16}.jpg", (number, number))
    assert views.read("00" * 16) is None
    assert views.read("03" * 16) == b"v" * 600
    assert all(path.exists() for path in others)
    (library / "views").unlink()
    (library / "views").write_text("no folder")
    views.keep("0f" * 16, b"v")  # without a word: it only makes it slower
    assert views.read("0f" * 16) is None


def test_pictures_by_content_are_asked_for_once(open_server: Served, place: Path) -> None:
    item = items(place)["plain.png"]
    found = json.loads(open_server.ask("/api/search?q=name:plain").body)["hits"][0]
    for kind in ("thumb", "view"):
        whole = open_server.ask(f"/{kind}/{item}/{found['version']}")
        assert "immutable" in whole.headers["cache-control"]
        assert "private" in whole.headers["cache-control"]
        stale = open_server.ask(f"/{kind}/{item}/0123")
        assert (stale.body, stale.headers["cache-control"]) == (whole.body, "private, no-cache")
    page = asked_body(open_server, ["name:plain", None, 5])
    assert f"thumb/{item}/{found['version']}" in page


def asked_body(served: Served, inputs: list[object]) -> str:
    question = {"data": inputs, "fn_index": search_function(served), "session_hash": "body"}
    assert asked(served, question).status == 200
    return served.ask("/gradio_api/queue/data?session_hash=body").body.decode()


def test_what_is_known_already_is_not_decoded_again(open_server: Served, place: Path) -> None:
    item, photo = items(place)["scan.tif"], place / "photos" / "scan.tif"
    tag = open_server.ask(f"/view/{item}").headers["etag"]
    hidden = place / "hidden.tif"
    photo.rename(hidden)
    shutil.rmtree(place / "test.clipsearch" / "views")
    try:  # nothing is there to be decoded
        assert open_server.ask(f"/view/{item}", {"If-None-Match": tag}).status == 304
    finally:
        hidden.rename(photo)
    first = open_server.ask(f"/view/{item}").body
    (kept,) = (place / "test.clipsearch" / "views").glob("*/*")
    assert kept.read_bytes() == first
    assert kept.stat().st_mode & 0o077 == 0


def test_the_frameworks_errors_have_our_shape(open_server: Served) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=X"}
    json_kind = {"Content-Type": "application/json"}
    for method, path, headers, body, status in (
        ("POST", "/api/search", form, b"--X\r\nno header", 400),
        ("POST", "/api/search", form, b'--X\r\nContent-Disposition: form-data; name="picture"'
         b"\r\n\r\ntext\r\n--X--\r\n", 400),
        ("POST", "/api/search", json_kind, b"{}", 415),
        ("POST", "/api/info", json_kind, b"{}", 405),
        ("DELETE", "/api/items/1", {}, None, 405),
        ("GET", "/api/nothing", {}, None, 404),
        ("POST", "/thumb/1", json_kind, b"{}", 405),
        ("POST", "/view/1/2.1", {}, b"no JSON", 405),
        ("DELETE", "/original/1", {}, None, 405),
        ("PATCH", "/api/items/1", {}, b"no JSON", 405),
        ("GET", "/thumb/1/2/3", {}, None, 404),
        ("GET", "/original/1e0", {}, None, 404),
        ("GET", "/original/%ff", {}, None, 404),
        ("GET", "/original/999999", {}, None, 404),
        ("GET", "/assets/none.js", {}, None, 404),
        ("GET", "/docs", {}, None, 403),
        ("POST", "/gradio_api/queue/join", json_kind, b"[1]", 422),
        ("POST", "/gradio_api/queue/join", json_kind, b"{", 400),
        ("GET", "/gradio_api/queue/join", {}, None, 405),
        ("POST", "/gradio_api/upload", json_kind, b"{}", 400),
        ("POST", "/gradio_api/upload", form, b"--X\r\nno header", 413),
        ("GET", "/api/search?q=in:~nobody/x", {}, None, 400),
        ("GET", "/api/search?q=in:~root/x", {}, None, 400),
    ):  # fmt: skip
        reply = open_server.ask(path, headers, method=method, body=body)
        assert reply.status == status, (path, reply.body)
        error = json.loads(reply.body)["error"]
        assert error["status"] == status
        assert error["message"].strip()
        assert "<class" not in error["message"]
        assert status != 405 or reply.headers["allow"], path
    words = open_server.ask("/docs", {"Accept": "text/html"})
    assert words.headers["content-type"].startswith("text/plain")


def test_strange_numbers_and_long_questions_are_answered(open_server: Served) -> None:
    for query, status in (
        ("top=1000000000", 400),
        ("top=-1", 400),
        ("q=" + "x" * 20_000, 200),
        ("q=" + "(" * 5_000, None),
        ("q=" + "%2Ba%20" * 3_000, None),
        ("q=in:" + "*a" * 500 + "b", 200),
        ("q=%ff%fe", None),
    ):
        reply = open_server.ask(f"/api/search?{query}")
        assert reply.status in ((200, 400) if status is None else (status,)), query[:20]
    for path in ("/thumb/..%2f..%2flibrary.db", "/thumb/1/../../library.db", "/view/%00"):
        assert open_server.ask(path).status in (403, 404)


# --- the token ------------------------------------------------------------------------------

PROTECTED = (
    "/",
    "/thumb/1",
    "/view/1",
    "/original/1",
    "/config",
    "/theme.css",
    "/gradio_api/info",
    "/gradio_api/file=/etc/passwd",
    "/gradio_api/queue/data?session_hash=s",
    "/assets/anything.js",
    "/static/img/logo_nosize.svg",
    "/favicon.ico",
    "/no/such/page",
)


def from_client(number: int) -> dict[str, str]:
    """As the trusted proxy tells of a visitor: each has wrong tokens of its own."""
    return {"X-Forwarded-For": f"10.0.{number // 250}.{number % 250}"}


@pytest.mark.parametrize("path", PROTECTED)
def test_every_route_asks_for_the_token(locked_server: Served, path: str) -> None:
    client = from_client(PROTECTED.index(path))
    assert locked_server.ask(path, {"Authorization": "Bearer wrong", **client}).status == 401
    for headers in (
        {},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer "},
        {"Cookie": f"clipsearch-{locked_server.port}={quote(TOKEN)}"},
        {"Cookie": f"clipsearch-{locked_server.port}="},
    ):
        assert locked_server.ask(path, headers).status == 401, headers
    separator = "&" if "?" in path else "?"
    assert locked_server.ask(f"{path}{separator}token=wrong", client).status == 401
    assert locked_server.ask(f"{path}{separator}token=", client).status == 401


def test_uploads_ask_for_the_token_too(locked_server: Served) -> None:
    secret = f"/gradio_api/upload?token={quote(TOKEN, safe='')}"
    for path in ("/gradio_api/upload", "/gradio_api/queue/join", secret):
        assert locked_server.ask(path, method="POST", body=b"x").status == 401
    assert upload(locked_server, b"x", {"Authorization": f"Bearer {TOKEN}"})


def test_programs_send_the_token_as_bearer(locked_server: Served, place: Path) -> None:
    item = items(place)["plain.png"]
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert locked_server.ask(f"/thumb/{item}", bearer).status == 200
    assert locked_server.ask("/", bearer).status == 200


def test_visitors_give_the_token_once(locked_server: Served) -> None:
    first = locked_server.ask(f"/?q=dog&token={quote(TOKEN, safe='')}")
    assert first.status == 303
    assert first.headers["location"] == "/?q=dog"
    cookie = first.headers["set-cookie"]
    assert "httponly" in cookie.lower()
    assert "samesite=strict" in cookie.lower()
    assert TOKEN not in cookie
    assert locked_server.ask("/", {"Cookie": cookie.split(";")[0]}).status == 200
    away = locked_server.ask(f"//evil.example/?token={quote(TOKEN, safe='')}")
    assert away.headers["location"] == "/evil.example/"


def test_the_token_is_never_printed(locked_server: Served) -> None:
    assert TOKEN not in "".join(locked_server.lines)


def test_a_part_of_an_original_can_be_asked_for(open_server: Served, place: Path) -> None:
    """So that the browser can go to a place in a video."""
    data = (place / "photos" / "plain.png").read_bytes()
    reply = open_server.ask(f"/original/{items(place)['plain.png']}", {"Range": "bytes=10-19"})
    assert (reply.status, reply.body) == (206, data[10:20])
    assert reply.headers["content-range"] == f"bytes 10-19/{len(data)}"


def test_wrong_tokens_are_answered_later_and_later(locked_server: Served) -> None:
    wrong = {"Authorization": "Bearer wrong", **from_client(900)}
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        assert locked_server.ask("/api/info", wrong).status == 401
        times.append(time.perf_counter() - begun)
    assert times[4] > 0.45 > times[0]
    wrong, right = {**wrong, **from_client(901)}, {"Authorization": f"Bearer {TOKEN}"}
    with ThreadPoolExecutor(12) as pool:  # the right one neither waits nor is refused
        guesses = [pool.submit(locked_server.ask, "/api/info", wrong) for _ in range(12)]
        time.sleep(0.2)
        begun = time.perf_counter()
        assert locked_server.ask("/api/info", {**right, **from_client(901)}).status == 200
        assert time.perf_counter() - begun < 1.0
        statuses = [guess.result().status for guess in guesses]
    assert set(statuses) == {401, 429}
    assert statuses.count(401) <= 3 + 4  # what is free, and what may wait at once


def test_a_token_can_be_in_a_file_and_has_a_least_length(place: Path, call_cli: Cli) -> None:
    library = ["--library", place / "test.clipsearch"]
    short = call_cli("serve", *library, "--token", "short")
    assert (short.returncode, "12" in short.stderr) == (2, True)
    blank = call_cli("serve", *library, "--token", " " * 20)
    assert (blank.returncode, "0 characters" in blank.stderr) == (2, True)
    file = place / "token.txt"
    for content, said in (("", "empty"), ("short\n", "12")):
        file.write_text(content)
        done = call_cli("serve", *library, "--token-file", file)
        assert (done.returncode, said in done.stderr) == (2, True)
    both = call_cli("serve", *library, "--token-file", file, "--token", TOKEN)
    assert both.returncode == 2
    missing = call_cli("serve", *library, "--token-file", place / "none")
    assert (missing.returncode, str(place / "none") in missing.stderr) == (2, True)
    file.write_text(f"{TOKEN}\nnot this\n")
    accepted = ["--token-file", file, "--host", "no.such.host.invalid"]
    assert call_cli("serve", *library, *accepted).returncode == 80
