"""The server: who gets in, what is served by item number, and that nothing else is."""

from __future__ import annotations

import io
import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image
from serving import Reply, Served, index, running_server

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
    for origin in ("https://evil.example", "null", f"http://127.0.0.1:{port + 1}"):
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
