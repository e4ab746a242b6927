"""What a server goes through when one client does its worst, and whether the others notice.

    python benchmarks/serving_under_attack.py [--part queue] [--part uploads] [--part views]

Makes a small library, starts ``clipsearch serve`` on 127.0.0.1 and attacks it, each part on a
server of its own, bounded in number and time:

queue    2,800 questions with fresh session hashes whose answers nobody reads; how long another
         client's question takes before, during and after
uploads  12 uploads at once of pictures of 14,000 x 14,000 (a PNG of 571 KB, and other formats);
         the memory (PSS) of the server and all its decoders, at its peak and a while after
views    12 requests at once for /view of such pictures that were indexed; the same
streams  400 streams and 200 connections that never finish a request; the time of a question

Memory is read from /proc, so Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from PIL import Image
from serving import Served, index, running_server

Image.MAX_IMAGE_PIXELS = None
SIDE = 14_000
ATTACKS = 2_800
AT_ONCE = 12
WAIT_S = 20.0  # after an attack, until memory is looked at again


# --- what is sent ---------------------------------------------------------------------------


def png_bomb(side: int = SIDE) -> bytes:
    """A PNG of one colour: 588 MB of rows in 571 KB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + 3 * side)) for _ in range(side)) + packer.flush()
    body = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def bombs() -> dict[str, bytes]:
    """Large pictures in few bytes, one of each format that can say so much with so little."""
    large = Image.new("RGB", (SIDE, SIDE), (90, 140, 60))
    made = {"png": png_bomb()}
    kinds = {
        "jpg": {"format": "JPEG", "quality": 30},
        "progressive.jpg": {"format": "JPEG", "quality": 30, "progressive": True},
        "tif": {"format": "TIFF", "compression": "tiff_adobe_deflate"},
        "gif": {"format": "GIF"},
    }
    for name, how in kinds.items():
        buffer = io.BytesIO()
        (large.quantize(4) if name == "gif" else large).save(buffer, **how)  # type: ignore[arg-type]
        made[name] = buffer.getvalue()
    return made


def multipart(data: bytes, name: str, field: str = "files") -> tuple[dict[str, str], bytes]:
    head = f'--X\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    return {
        "Content-Type": "multipart/form-data; boundary=X"
    }, head.encode() + data + b"\r\n--X--\r\n"


def upload(served: Served, data: bytes, name: str) -> str:
    headers, body = multipart(data, name)
    reply = served.ask("/gradio_api/upload", headers, method="POST", body=body)
    assert reply.status == 200, reply.body
    path: str = json.loads(reply.body)[0]
    return path


# --- questions ------------------------------------------------------------------------------


def function(served: Served) -> int:
    """The number of the page's search."""
    config = json.loads(served.ask("/config").body)
    return next(one["id"] for one in config["dependencies"] if len(one.get("inputs", [])) == 3)


def question(number: int, session: str, picture: str | None = None, words: str = "red") -> bytes:
    file = {"path": picture, "meta": {"_type": "gradio.FileData"}} if picture else None
    asked = {"data": [words, file, 10], "fn_index": number, "session_hash": session}
    return json.dumps(asked).encode()


JSON = {"Content-Type": "application/json"}


def join(served: Served, body: bytes) -> int:
    return served.ask("/gradio_api/queue/join", JSON, method="POST", body=body).status


def answer_s(served: Served, number: int, session: str, picture: str | None = None) -> float:
    """Seconds from a question to its whole answer, as the page asks it; inf where there is none."""
    begun = time.perf_counter()
    try:
        if join(served, question(number, session, picture)) != 200:
            return float("inf")
        body = served.ask(f"/gradio_api/queue/data?session_hash={session}").body
    except OSError:
        return float("inf")
    return time.perf_counter() - begun if b"process_completed" in body else float("inf")


# --- memory ---------------------------------------------------------------------------------


def pss_bytes(root: int) -> int:
    """What a process and all below it hold in memory, shared pages counted once."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                text = (entry / "stat").read_text()
                parents.setdefault(int(text.rsplit(")", 1)[1].split()[1]), []).append(
                    int(entry.name)
                )
    total, waiting = 0, [root]
    while waiting:
        one = waiting.pop()
        waiting += parents.get(one, [])
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


class Watch:
    """The largest memory of a server and its decoders while a block runs."""

    def __init__(self, served: Served) -> None:
        self._root = served.process.pid
        self.peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._over.wait(0.05):
            self.peak = max(self.peak, pss_bytes(self._root))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"


# --- the parts ------------------------------------------------------------------------------


def attack_queue(place: Path) -> None:
    with running_server(place / "small.clipsearch") as served:
        served.patience_s = 5.0
        number = function(served)
        answer_s(served, number, "warm")
        before = min(answer_s(served, number, f"before{n}") for n in range(3))
        over = threading.Event()
        during: list[float] = []

        def others() -> None:
            turn = 0
            while not over.is_set():
                during.append(answer_s(served, number, f"other{turn}"))
                turn += 1

        def attack(turn: int) -> int:
            try:
                return join(served, question(number, f"attack{turn}"))
            except OSError:
                return 0

        thread = threading.Thread(target=others)
        thread.start()
        begun = time.perf_counter()
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(attack, range(ATTACKS)))
        took = time.perf_counter() - begun
        over.set()
        thread.join()
        after = [answer_s(served, number, f"after{n}") for n in range(5)]
        counted = {status: statuses.count(status) for status in sorted(set(statuses))}
        print(f"queue: {ATTACKS:,} unread questions in {took:.1f} s, answered {counted}")
        print(
            f"  another's question: before {before:.3f} s; during, of {len(during)}, median "
            f"{sorted(during)[len(during) // 2]:.3f} s, slowest {max(during):.3f} s; "
            f"after, slowest {max(after):.3f} s"
        )
        memory = pss_bytes(served.process.pid)
        print(f"  the server then holds {gb(memory)}")


def under_load(served: Served, what: str, jobs: list[Callable[[], object]]) -> None:
    """Runs all jobs at once; tells the peak, the end, and what a question costs meanwhile."""
    rest = pss_bytes(served.process.pid)
    begun = time.perf_counter()
    with Watch(served) as watch, ThreadPoolExecutor(len(jobs)) as pool:
        answers = [future.result() for future in [pool.submit(job) for job in jobs]]
    took = time.perf_counter() - begun
    time.sleep(WAIT_S)
    end = pss_bytes(served.process.pid)
    counted = {str(one): answers.count(one) for one in dict.fromkeys(answers)}
    print(
        f"{what}: {len(jobs)} at once took {took:.1f} s, answered {counted}; memory "
        f"{gb(rest)} before, {gb(watch.peak)} at its peak, {gb(end)} {WAIT_S:.0f} s later"
    )


def attack_with_uploads(place: Path) -> None:
    for name, data in sorted(bombs().items()):
        with running_server(place / "small.clipsearch") as served:
            number = function(served)
            answer_s(served, number, "warm")

            def through_rest(data: bytes = data, name: str = name, served: Served = served) -> int:
                headers, body = multipart(data, name, "picture")
                address = f"http://127.0.0.1:{served.port}"
                connection = http.client.HTTPConnection(
                    address.removeprefix("http://"), timeout=500
                )
                with contextlib.closing(connection):
                    connection.request("POST", "/api/search?top=3", body, headers)
                    reply = connection.getresponse()
                    reply.read()
                    return reply.status

            size = f"{name}, {len(data) / 1e3:,.0f} KB"
            under_load(served, f"uploads of {size}, REST", [through_rest] * AT_ONCE)
            sent = [upload(served, data, f"{turn}.{name}") for turn in range(AT_ONCE)]

            def on_page(turn: int, number: int = number, served: Served = served) -> bool:
                return answer_s(served, number, f"up{turn}", sent[turn]) < float("inf")  # noqa: B023

            jobs = [lambda turn=turn, ask=on_page: ask(turn) for turn in range(AT_ONCE)]
            under_load(served, f"uploads of {size}, page", jobs)


def attack_with_views(place: Path) -> None:
    folder = place / "panoramas"
    folder.mkdir()
    for name, data in bombs().items():
        (folder / f"pano.{name}").write_bytes(data)
    noisy = bytearray(png_bomb())
    for turn in range(AT_ONCE // 2):  # a text chunk makes each a content of its own
        text = f"Comment\0{turn}".encode()
        check = struct.pack(">I", zlib.crc32(b"tEXt" + text))
        extra = struct.pack(">I", len(text)) + b"tEXt" + text + check
        (folder / f"{turn}.png").write_bytes(bytes(noisy[:33]) + extra + bytes(noisy[33:]))
    library = place / "panoramas.clipsearch"
    command = [sys.executable, "-m", "clipsearch", "index", str(folder), "--quiet"]
    subprocess.run([*command, "--model", "embedded", "--library", str(library)], check=False)
    from clipsearch import open_library

    with open_library(place / "panoramas.clipsearch") as library:
        items = [int(item) for item in library.present_items()]
        kinds = {item: record.format for item, record in library.items(items).items()}
    with running_server(place / "panoramas.clipsearch") as served:
        answer_s(served, function(served), "warm")

        def view(item: int) -> int:
            connection = http.client.HTTPConnection(f"127.0.0.1:{served.port}", timeout=500)
            with contextlib.closing(connection):
                connection.request("GET", f"/view/{item}")
                reply = connection.getresponse()
                reply.read()
                return reply.status

        pngs = [item for item in items if kinds[item] == "PNG"]
        pngs = (pngs * AT_ONCE)[:AT_ONCE]
        under_load(served, "views of PNG", [lambda item=item: view(item) for item in pngs])
        rest = [item for item in items if kinds[item] != "PNG"]
        jobs = [lambda item=item: view(item) for item in (rest * AT_ONCE)[:AT_ONCE]]
        under_load(served, "views of " + ", ".join(sorted(kinds[i] for i in rest)), jobs)


def attack_with_streams(place: Path) -> None:
    with running_server(place / "small.clipsearch") as served:
        number = function(served)
        answer_s(served, number, "warm")
        held: list[socket.socket] = []
        try:
            for turn in range(600):
                one = socket.create_connection(("127.0.0.1", served.port), timeout=5)
                head = b"GET /gradio_api/heartbeat/s%d HTTP/1.1\r\nHost: 127.0.0.1\r\n" % turn
                one.sendall(head + (b"\r\n" if turn % 3 else b""))
                held.append(one)
        except OSError as error:
            print(f"streams: refused after {len(held)}: {error}")
        slowest = max(answer_s(served, number, f"s{n}") for n in range(5))
        print(f"streams: {len(held)} held open; a question then takes at most {slowest:.3f} s")
        for one in held:
            one.close()


PARTS = {
    "queue": attack_queue,
    "uploads": attack_with_uploads,
    "views": attack_with_views,
    "streams": attack_with_streams,
}


@contextlib.contextmanager
def made_place() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="clipsearch-attack-"))
    try:
        folder = place / "photos"
        folder.mkdir()
        for colour in ("red", "green", "blue"):
            Image.new("RGB", (400, 300), colour).save(folder / f"{colour}.jpg")
        index(place / "small.clipsearch", folder, "embedded")
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", action="append", choices=sorted(PARTS))
    chosen = parser.parse_args().part or list(PARTS)
    with made_place() as place:
        for name in chosen:
            PARTS[name](place)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
