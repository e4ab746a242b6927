"""Behind a reverse proxy: the very blocks of docs/ui.md, in the real nginx and Caddy."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image
from serving import Served, index, running_server
from starlette.types import Receive, Scope, Send

from ui.proxies import FromProxies, read_behind

TOKEN = "correct horse battery"  # noqa: S105
HOST = "photos.example"
DOCS = Path(__file__).parents[1] / "docs" / "ui.md"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
JSON = {"Content-Type": "application/json"}


def program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def block(language: str) -> str:
    """The example of docs/ui.md."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    return str(found)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(command: list[str], port: int, log: Path) -> Iterator[int]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            for _ in range(200):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()
            process.wait(20)


@contextmanager
def nginx(folder: Path, upstream: int, location: str) -> Iterator[int]:
    """The documented block, with free ports and the location asked for."""
    nginx, port = program("nginx"), free_port()
    server = block("nginx").replace("listen 80;", f"listen 127.0.0.1:{port};")
    server = server.replace("127.0.0.1:7860", f"127.0.0.1:{upstream}")
    server = server.replace("location / {", f"location {location} {{")
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;\n" if hasattr(os, "getuid") and os.getuid() == 0 else ""
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"{user}daemon off;\npid {folder}/pid;\nworker_processes 1;\nerror_log stderr;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{temporary}{server}}}\n"
    )
    command = [nginx, "-p", str(folder), "-c", str(configuration), "-e", "stderr"]
    with started(command, port, folder / "log") as taken:
        yield taken


@contextmanager
def caddy(folder: Path, upstream: int) -> Iterator[int]:
    caddy, port = program("caddy"), free_port()
    server = block("caddy").replace("127.0.0.1:7860", f"127.0.0.1:{upstream}")
    server = server.replace("photos.example {", f"http://{HOST}:{port} {{\n    bind 127.0.0.1")
    configuration = folder / "Caddyfile"
    configuration.write_text(f"{{\n    admin off\n    auto_https off\n}}\n{server}")
    command = [caddy, "run", "--config", str(configuration), "--adapter", "caddyfile"]
    with started(command, port, folder / "log") as taken:
        yield taken


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    place = tmp_path_factory.mktemp("behind")
    (place / "photos").mkdir()
    Image.new("RGB", (64, 48), "red").save(place / "photos" / "plain.png")
    index(place / "test.clipsearch", place / "photos", f"local-dir:{tiny_model_dir}")
    return place / "test.clipsearch"


@pytest.fixture(scope="module")
def at_root(library: Path) -> Iterator[Served]:
    flags = ("--trusted-proxy", "127.0.0.1", "--allowed-host", HOST)
    with running_server(library, *flags) as served:
        yield served


@pytest.fixture(scope="module")
def under_path(library: Path) -> Iterator[Served]:
    flags = ("--trusted-proxy", "127.0.0.1", "--root-path", "/photos")
    with running_server(library, *flags, environment={"CLIPSEARCH_TOKEN": TOKEN}) as served:
        yield served


def through(served: Served, port: int) -> Served:
    """Requests to the proxy in place of the server."""
    return Served(served.process, f"http://127.0.0.1:{port}")


def works(proxied: Served, root: str, headers: dict[str, str]) -> None:
    """A page with all it loads, questions, uploads, streams, pictures and programs."""
    own = {"Host": f"{HOST}:{proxied.port}", **headers}
    outside = f"http://{HOST}:{proxied.port}{root}"
    page = proxied.ask(f"{root}/", own)
    assert page.status == 200
    config = json.loads(proxied.ask(f"{root}/config", own).body)
    assert config["root"].rstrip("/") == outside
    assert f'"root":"{outside}"' in page.body.decode().replace(": ", ":")
    assert proxied.ask(f"{root}/theme.css", own).status == 200
    script = re.search(r'(?:src|href)="\.?/?(assets/[^"]+)"', page.body.decode())
    assert script is not None
    assert proxied.ask(f"{root}/{script.group(1)}", own).status == 200

    body = (
        b'--X\r\nContent-Disposition: form-data; name="files"; filename="q.png"\r\n'
        b"Content-Type: image/png\r\n\r\nnot a picture\r\n--X--\r\n"
    )
    form = {"Content-Type": "multipart/form-data; boundary=X", "Origin": f"http://{own['Host']}"}
    sent = proxied.ask(f"{root}/gradio_api/upload", {**own, **form}, method="POST", body=body)
    (path,) = json.loads(sent.body)
    assert proxied.ask(f"{root}/gradio_api/file={path}", own).body == b"not a picture"

    function = next(one["id"] for one in config["dependencies"] if len(one.get("inputs", [])) == 3)
    question = {"data": ["format:png", None, 10], "fn_index": function, "session_hash": "s"}
    asks = {**own, **JSON, "Origin": f"http://{own['Host']}", "Sec-Fetch-Site": "same-origin"}
    join = f"{root}/gradio_api/queue/join"
    joined = proxied.ask(join, asks, method="POST", body=json.dumps(question).encode())
    assert joined.status == 200, joined.body
    answer = proxied.ask(f"{root}/gradio_api/queue/data?session_hash=s", own).body
    assert b"cs-hit" in answer

    found = json.loads(proxied.ask(f"{root}/api/search?q=format:png", own).body)["hits"][0]
    assert found["thumb"] == f"{root}/thumb/{found['item']}"
    for address in (found["thumb"], found["view"], f"{root}/original/{found['item']}"):
        assert proxied.ask(address, own).status == 200

    foreign = {**asks, "Origin": "https://evil.example"}
    assert proxied.ask(join, foreign, method="POST", body=b"{}").status == 403


def test_the_documented_nginx_serves_the_page(at_root: Served, tmp_path: Path) -> None:
    with nginx(tmp_path, at_root.port, "/") as port:
        works(through(at_root, port), "", {})
        evil = through(at_root, port).ask("/api/info", {"Host": "evil.example"})
        assert evil.status == 421


def test_the_documented_nginx_serves_the_page_under_a_path(
    under_path: Served, tmp_path: Path
) -> None:
    with nginx(tmp_path, under_path.port, "/photos/") as port:
        proxied = through(under_path, port)
        works(proxied, "/photos", BEARER)
        assert proxied.ask("/photos/api/info", {"Host": HOST}).status == 401
        entry = proxied.ask("/photos/?token=correct%20horse%20battery", {"Host": HOST})
        assert entry.headers["location"] == "/photos/"
        assert "path=/photos/" in entry.headers["set-cookie"].lower()
        cookie = {"Host": HOST, "Cookie": entry.headers["set-cookie"].split(";")[0]}
        assert proxied.ask("/photos/api/info", cookie).status == 200


def test_the_documented_caddy_serves_the_page_under_a_path(
    under_path: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with caddy(tmp_path, under_path.port) as port:
        works(through(under_path, port), "/photos", BEARER)


def test_a_path_that_the_proxy_leaves_on_is_the_same(under_path: Served) -> None:
    for path in ("/api/info", "/photos/api/info"):
        assert under_path.ask(path, BEARER).status == 200
    assert under_path.ask("/photos", BEARER).headers["location"] == "/photos/"
    once = under_path.ask(f"/photos?token={quote(TOKEN)}").headers["location"]
    assert once == f"/photos/?token={quote(TOKEN)}"
    assert under_path.ask(once).headers["location"] == "/photos/"


def test_the_visitor_is_who_the_last_proxy_names() -> None:
    """Proxies lengthen the header, or add one of their own below what the visitor wrote."""
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["client"][0])

    behind = FromProxies(app, read_behind(["127.0.0.1", "10.0.0.0/8"], [], ""))
    for lines, client in (
        (["6.6.6.6, 203.0.113.7"], "203.0.113.7"),
        (["6.6.6.6", "203.0.113.7"], "203.0.113.7"),
        (["6.6.6.6", "203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        (["203.0.113.7:4711"], "203.0.113.7"),
        (["[2001:db8::1]:4711"], "2001:db8::1"),
        (["unknown"], "127.0.0.1"),
    ):
        headers = [(b"x-forwarded-for", line.encode()) for line in lines]
        scope = {"type": "http", "path": "/", "headers": headers, "client": ("127.0.0.1", 1)}
        asyncio.run(behind({**scope, "scheme": "http", "query_string": b""}, None, None))  # type: ignore[arg-type]
        assert seen[-1] == client, lines


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--trusted-proxy", "proxy.example"], "proxy.example"),
        (["--root-path", "photos"], "photos"),
        (["--root-path", "/a/../b"], "/a/../b"),
        (["--allowed-host", "https://photos.example"], "https://photos.example"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(
    call_cli: Callable[..., subprocess.CompletedProcess[str]], flags: list[str], named: str
) -> None:
    done = call_cli("serve", *flags)
    assert done.returncode == 2
    assert named in done.stderr
