"""The docs are true: every example in them runs, or is read by the code that reads such things.

A block is found by itself. What it is says its info string (```bash, ```python, ```json ...), and
CHECKS says how each kind is checked. A block that nothing here knows how to check fails; give it
one of these kinds. What is not run, and why, stands in NOT_RUN and PARSED, and nowhere else.
"""

from __future__ import annotations

import configparser
import csv
import io
import json
import plistlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import chdir
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from docs_blocks import (
    REPOSITORY,
    Block,
    blocks,
    blocks_of,
    clipsearch,
    clipsearch_calls,
    commands,
    fences,
    pages,
    parsed,
    run,
    words_of,
)
from models import compile_here
from once import made_once
from serving import Served, running_server

from clipsearch.cli import COMMANDS
from clipsearch.config import resolve
from clipsearch.query import parse
from clipsearch.tagging import read_vocabulary
from indexer.ignore import read_rules

# Commands of clipsearch whose arguments are parsed and no more.
PARSED = {
    "evaluate": "one run of it is compared with the tables that docs/evaluate.md shows",
    "models use --background": "goes on by itself; test_model_change.py waits for it",
    "carried --carry": "needs a photo that was changed in place",
    "carried --take-back": "needs a photo that was changed in place",
    "serve": "answers until Ctrl-C; test_server.py and the curl examples here start it",
    "watch": "runs until Ctrl-C; test_watch.py starts it",
    "train": "takes a minute; test_readme.py runs the README's",
}
PARSED_PAGES = {"README.md": "test_readme.py runs them one after another, with the embedded model"}
# Programs that are not run. Calls of clipsearch inside their lines are parsed.
NOT_RUN = {
    "make": "sets up and tests a checkout; this is one of its tests",
    "printf": "is piped into sudo",
    "sudo": "changes this machine",
    "systemctl": "changes this machine",
    "journalctl": "needs the service",
    "loginctl": "changes this machine",
    "docker": "downloads an image",
    "schtasks": "is Windows'",
    "torchrun": "takes a minute; test_teams.py trains with two processes",
}
PACKAGES = ("clipsearch", "indexer", "training", "ui")
TOKEN = "something-long"  # noqa: S105 - as docs/rest.md has it
BLOCKS = blocks()


def of_kind(*kinds: str) -> Any:
    """Runs a test once for each block of these kinds."""
    chosen = [block for block in BLOCKS if block.kind in kinds]
    return pytest.mark.parametrize("block", chosen, ids=[block.name for block in chosen])


# --- the library that examples run against


@pytest.fixture(scope="session")
def template(shared: Path, real_photos: Path, tiny_model_dir: Path) -> Path:
    """A home with ~/Photos, indexed and tagged with a tiny model, and the files examples name."""

    def make(home: Path) -> None:
        shutil.copytree(real_photos, home / "Photos")
        for folder in ("Scans", "moved", "work", "rex", "Photos/Lisbon", "Photos/Scans"):
            (home / folder).mkdir()
        photo = {name: real_photos / f"{name}.png" for name in ("cat", "coffee", "motorcycle")}
        for folder in ("Scans", "moved"):
            shutil.copy2(photo["coffee"], home / folder / "one.png")
        shutil.copy(photo["cat"], home / "Photos" / "Lisbon" / "tram.png")
        shutil.copy(photo["motorcycle"], home / "Photos" / "Scans" / "two.png")
        work = home / "work"
        for number, name in enumerate(("cat.jpg", "a.jpg", "rex1.jpg", "photo.jpg")):
            _as_jpeg(photo["cat"], work / name, 90 - number)
        _as_jpeg(photo["cat"], home / "rex" / "1.jpg", 50)
        (work / "mine.txt").write_text("animal\n    dog\n    cat\nbeach\n", "utf-8")
        for name, path in photo.items():
            (home / "photos-by-class" / name).mkdir(parents=True)
            for number in range(3):
                shutil.copy(path, home / "photos-by-class" / name / f"{number}.png")
        shutil.copytree(tiny_model_dir, home / "tiny")
        _other_model(tiny_model_dir, home / "other")
        index = ["index", "Photos", "Scans", "work", "--model", f"local-dir:{home / 'tiny'}"]
        for line in (index, ["tag", "--vocabulary", "work/mine.txt"]):
            with chdir(home):
                done = clipsearch([*line, "--library", "library", "--quiet"])
            assert done.code == 0, done.err

    return made_once(shared / "docs-home", make)


def _as_jpeg(picture: Path, path: Path, quality: int) -> None:
    from PIL import Image

    with Image.open(picture) as opened:
        opened.convert("RGB").save(path, quality=quality)


def _other_model(model: Path, folder: Path) -> None:
    """A model that is built alike, with other weights, and compiled."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(model, folder)
    weights = folder / "open_clip_model.safetensors"
    save_file(
        {name: np.asarray(each * 0.9, "f4") for name, each in load_file(weights).items()}, weights
    )
    compile_here(f"local-dir:{folder}")


@pytest.fixture
def home(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the template for one block, in which it may change what it likes."""
    home = tmp_path / "home"
    shutil.copytree(template, home, ignore=shutil.ignore_patterns("tiny", "other"))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("CLIPSEARCH_LIBRARY", str(home / "library"))
    monkeypatch.chdir(home / "work")
    for root in ("Photos", "Scans", "work"):
        done = clipsearch(["roots", "move", str(template / root), str(home / root)])
        assert done.code == 0, done.err
    return home


@pytest.fixture
def placed(template: Path) -> Callable[[str], str]:
    """Gives an example this library's items, models and folders in place of its own."""
    here = {
        "1234": "1",
        "ADDRESS": f"local-dir:{template / 'other'}",
        "local-dir:runs/mine/export": f"local-dir:{template / 'other'}",
        "/media/old": "~/Scans",
        "/media/new": "~/moved",
    }

    def place(text: str) -> str:
        for example, real in here.items():
            text = text.replace(example, real)
        return text

    return place


def test_every_block_is_found_and_known() -> None:
    for path in pages():
        text = path.read_text("utf-8")
        page = path.relative_to(REPOSITORY).as_posix()
        assert fences(text) == 2 * len(list(blocks_of(page, text))), (
            f"{page}: a fence is not closed"
        )
    for block in BLOCKS:
        assert block.kind in CHECKED, (
            f"{block.name} is '{block.kind}', which no test reads. Say what it is after its first "
            f"fence: {', '.join(sorted(CHECKED))}"
        )


def test_a_plain_block_is_unknown_and_one_of_commands_is_run() -> None:
    text = "a\n```\nclipsearch info  # b\n```\n- x\n    ~~~\n    what?\n    ~~~\n"
    text += "```sh\nls |\n  wc\n```\n"
    found = list(blocks_of("p", text))
    assert [(each.line, each.kind, each.body) for each in found] == [
        (2, "bash", "clipsearch info  # b\n"),
        (6, "", "what?\n"),
        (9, "bash", "ls |\n  wc\n"),
    ]
    text = "```\nCLIPSEARCH_TOKEN=$(openssl rand -hex 16) clipsearch serve [--port 1]\n```\n"
    (block,) = blocks_of("p", text)
    assert (block.kind, clipsearch_calls(block.body)) == ("bash", [["serve", "--port", "1"]])
    assert [commands(each.body) for each in found] == [["clipsearch info"], ["what?"], ["ls | wc"]]
    with pytest.raises(AssertionError, match="--nonsense"):
        parsed(["search", "--nonsense", "x"])


@of_kind("bash")
def test_commands_run(
    block: Block, placed: Callable[[str], str], request: pytest.FixtureRequest
) -> None:
    """One after another in a home of their own, in this process; curl asks a real server."""
    for command in commands(block.body):
        program = next(word for word in words_of(command) if "=" not in word)
        calls = clipsearch_calls(placed(command))
        if program in NOT_RUN or block.page in PARSED_PAGES or _is_only_parsed(calls):
            for call in calls:
                parsed(call)
            continue
        request.getfixturevalue("home")
        if program == "curl":
            served = request.getfixturevalue("served")
            done = run(placed(command), lambda words, served=served: _to(served, words))
        else:
            assert program == "clipsearch", f"{block.name}: {program} is neither run nor in NOT_RUN"
            done = run(placed(command))
        assert done.code == 0, f"{block.name}: {command}\n{done.err}{done.out.decode()}"


def _is_only_parsed(calls: list[list[str]]) -> bool:
    """True for a command whose name, with what else an entry of PARSED names, is in it."""
    return any(set(entry.split()) <= set(call) for call in calls for entry in PARSED)


@of_kind("python")
def test_python_runs(block: Block, home: Path) -> None:
    exec(compile(block.body, block.name, "exec"), {})  # noqa: S102 - our own text


@of_kind("query")
def test_queries_are_understood(block: Block, home: Path, placed: Callable[[str], str]) -> None:
    for line in block.body.splitlines():
        query = placed(line)
        assert parse(str(parse(query))) == parse(query)
        done = clipsearch(["search", query])
        assert done.code == 0, f"{line}: {done.err}"


@of_kind("vocabulary")
def test_vocabularies_tag(block: Block, home: Path) -> None:
    copied = home / "copied.txt"
    copied.write_text(block.body, "utf-8")
    done = clipsearch(["tag", "--vocabulary", str(copied)])
    assert done.code == 0, done.err
    assert len(read_vocabulary(copied)) > 5


@of_kind("ignore")
def test_ignore_files_leave_out_what_they_say(block: Block, home: Path) -> None:
    path = home / "Photos" / ".clipsearchignore"
    path.write_text(block.body, "utf-8")
    rules, wrong = read_rules(str(path), str(path.parent), None)
    lines = [line for line in block.body.splitlines() if line and not line.startswith("#")]
    assert wrong == []
    assert len(rules.patterns) == len(lines)
    for line in lines:  # each says something of a file that it could mean: no word follows it
        assert " " not in line
    assert clipsearch(["index", "--dry-run"]).code == 0


@of_kind("csv")
def test_tables_of_captions_are_read(block: Block, home: Path) -> None:
    from training.data import read_captions

    (home / "copied.csv").write_text(block.body, "utf-8")
    rows = list(csv.DictReader(io.StringIO(block.body)))
    for row in rows:
        picture = home / row["path"]
        picture.parent.mkdir(exist_ok=True)
        shutil.copy(home / ("work/a.jpg" if "rex" in row["path"] else "Scans/one.png"), picture)
    read = read_captions(home / "copied.csv")
    assert read.skipped == []
    found = {caption for picture in read.pictures for caption in picture.captions}
    assert found == {row["caption"] for row in rows}


@of_kind("json")
def test_answers_have_the_shape_that_is_shown(block: Block, served: Served) -> None:
    shown = json.loads(block.body)
    asked = {
        ("elapsed_s", "hits", "model", "notes", "query", "total", "understood"): (
            "/api/search?q=type:picture&top=2"
        ),
        ("fill", "models"): "/api/models",
        ("error",): "/api/search?q=dog+camra:canon",
    }
    path = asked.get(tuple(sorted(shown)))
    assert path, f"{block.name}: say here which request answers so"
    reply = served.ask(path, {"Authorization": f"Bearer {TOKEN}"})
    _same_shape(shown, json.loads(reply.body), block.name)
    if "error" in shown:
        assert json.loads(reply.body) == shown


def _same_shape(shown: Any, real: Any, where: str) -> None:
    """Objects of the same keys, all the way down; null stands for anything."""
    if isinstance(shown, dict) and isinstance(real, dict):
        assert set(shown) == set(real), where
        for key in shown:
            _same_shape(shown[key], real[key], f"{where} {key}")
    elif isinstance(shown, list) and isinstance(real, list):
        if shown:
            assert real, f"{where}: nothing to compare with"
            _same_shape(shown[0], real[0], where)
    elif shown is not None and real is not None:
        numbers = isinstance(shown, int | float) and isinstance(real, int | float)
        assert numbers or type(shown) is type(real), where


@of_kind("ini")
def test_units_of_systemd_start_what_there_is(block: Block) -> None:
    unit = configparser.ConfigParser(strict=True, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(block.body)
    assert {"Unit", "Service", "Install"} <= set(unit)
    assert [parsed(call) for call in clipsearch_calls(unit["Service"]["ExecStart"])]


@of_kind("xml")
def test_property_lists_start_what_there_is(block: Block) -> None:
    words = plistlib.loads(block.body.encode())["ProgramArguments"]
    assert words[0].endswith("/clipsearch")
    parsed(words[1:])


@of_kind("dockerfile")
def test_dockerfiles_name_what_there_is(block: Block) -> None:
    text = re.sub(r"\\\n\s*", " ", block.body)
    lines = [line.split(None, 1) for line in text.splitlines() if line]
    known = [
        "FROM",
        "COPY",
        "RUN",
        "USER",
        "ENV",
        "VOLUME",
        "STOPSIGNAL",
        "CMD",
        "EXPOSE",
        "WORKDIR",
        "ENTRYPOINT",
    ]
    assert [word for word, _ in lines if word not in known] == []
    (command,) = [json.loads(rest) for word, rest in lines if word == "CMD"]
    calls = [call for part in command[-1].split(";") for call in clipsearch_calls(part)]
    assert [parsed(call) for call in calls]
    variables = re.findall(r"CLIPSEARCH_(\w+)=", text)
    assert all(hasattr(resolve(), name.lower()) for name in variables)
    assert "constraints.txt" not in text or (REPOSITORY / "constraints.txt").exists()


@of_kind("nginx")
def test_nginx_takes_its_configuration(block: Block, tmp_path: Path) -> None:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("no nginx on this machine")
    body = block.body
    if "server {" not in body:
        body = f"server {{ listen 127.0.0.1:8080;\n{body}\n}}"
    if "http {" not in body:
        body = f"http {{ access_log off;\n{_without_certificates(body)}\n}}"
    lines = f"pid {tmp_path}/pid; error_log {tmp_path}/log; events {{}}\n{body}"
    (tmp_path / "nginx.conf").write_text(lines, "utf-8")
    done = subprocess.run(
        [program, "-t", "-e", str(tmp_path / "log"), "-c", str(tmp_path / "nginx.conf")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _without_certificates(body: str) -> str:
    """Without TLS: the files of its certificates are on the reader's machine."""
    body = re.sub(r"ssl_certificate(_key)?\s[^;]+;", "", body)
    return re.sub(r"(listen\s[^;]*?)\s+ssl\b", r"\1", body)


@of_kind("caddyfile", "caddy")
def test_caddy_takes_its_configuration(block: Block, tmp_path: Path) -> None:
    program = shutil.which("caddy")
    if program is None:
        pytest.skip("no caddy on this machine")
    (tmp_path / "Caddyfile").write_text(block.body, "utf-8")
    done = subprocess.run(
        [program, "adapt", "--config", str(tmp_path / "Caddyfile"), "--adapter", "caddyfile"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@of_kind("text")
def test_texts_say_what_is_so(block: Block, request: pytest.FixtureRequest) -> None:
    check = TEXTS.get(block.page)
    assert check, f"{block.name}: TEXTS does not say how it is checked"
    check(block, request)


def _names_files_that_exist(block: Block, request: pytest.FixtureRequest) -> None:
    names = set(re.findall(r"[a-z_]+\.py", block.body))
    here = {path.name for folder in PACKAGES for path in (REPOSITORY / folder).rglob("*.py")}
    assert names - here == set()
    folders = set(re.findall(r"\b([a-z]+)/", block.body))
    there = {path.name for folder in PACKAGES for path in (REPOSITORY / folder).rglob("*/")}
    assert folders - there - set(PACKAGES) == set()


def _is_the_error_that_is_printed(block: Block, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("home")
    query = block.body.splitlines()[1].strip()
    done = clipsearch(["search", query])
    assert done.code != 0
    assert block.body.strip() in done.err


def _lists_the_library(block: Block, request: pytest.FixtureRequest) -> None:
    home: Path = request.getfixturevalue("home")
    clipsearch(["search", "a cat"])  # makes the index
    lines = block.body.splitlines()[1:]
    named = {name for line in lines for name in re.split(r",? +", line[:24].strip()) if name}
    real = {path.name for path in (home / "library").iterdir()}
    told = {name.split("/")[0].rstrip(",") for name in named}
    assert real <= told
    assert {"library.db", "index", "thumbs", "README.txt"} <= real


def _has_the_tables_that_are_printed(block: Block, request: pytest.FixtureRequest) -> None:
    """Titles and columns of every table, from a run on a few pictures."""
    printed = _tables(_evaluated(request.getfixturevalue("template")))
    for title, columns in _tables(block.body).items():
        assert title in printed
        assert columns - printed[title] == set(), title


@cache
def _evaluated(home: Path) -> str:
    flags = ["evaluate", "--model", f"local-dir:{home / 'tiny'}", "--data"]
    by_class = clipsearch([*flags, str(home / "photos-by-class"), "--parts", "all"])
    captions = str(home / "Photos" / "captions.csv")
    by_words = clipsearch([*flags, captions, "--parts", "retrieval"])
    assert (by_class.code, by_words.code) == (0, 0), by_class.err + by_words.err
    return (by_class.out + by_words.out).decode()


def _tables(text: str) -> dict[str, set[str]]:
    """The columns of each table by its title, without figures."""
    found: dict[str, set[str]] = {}
    for part in text.split("\n\n"):
        title, *rows = part.splitlines()
        if rows:
            columns = re.split(
                r"\s{2,}", re.sub(r"[0-9]+|\([0-9.]+\)|embedded", "", rows[0]).strip()
            )
            found[re.split(r"[:,]", title)[0]] = {column.strip() for column in columns} - {""}
    return found


TEXTS: dict[str, Callable[[Block, pytest.FixtureRequest], None]] = {
    "docs/architecture.md": _names_files_that_exist,
    "docs/evaluate.md": _has_the_tables_that_are_printed,
    "docs/metadata.md": _names_files_that_exist,
    "docs/query.md": _is_the_error_that_is_printed,
    "docs/storage.md": _lists_the_library,
}
CHECKED = {
    "bash", "caddy", "caddyfile", "csv", "dockerfile", "ignore", "ini", "json", "nginx", "python",
    "query", "text", "vocabulary", "xml",
}  # fmt: skip


@pytest.fixture(scope="module")
def served(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    library = tmp_path_factory.mktemp("served") / "library"
    shutil.copytree(template / "library", library)
    with running_server(library, environment={"CLIPSEARCH_TOKEN": TOKEN}) as served:
        yield served


def _to(served: Served, words: list[str]) -> list[str]:
    """A call of curl, sent to the server of this test with its token, failing on errors."""
    words = [re.sub(r"^http://[\w.]+:7860", served.url, word) for word in words]
    words = [re.sub(r"(Authorization: Bearer) .*", rf"\1 {TOKEN}", word) for word in words]
    if not any("Authorization" in word for word in words):
        words += ["-H", f"Authorization: Bearer {TOKEN}"]
    return [*words, "--fail-with-body", "--silent", "--show-error"]


@cache
def run_help(name: str) -> str:
    return clipsearch([name, "--help"]).out.decode()


def test_every_flag_in_the_text_exists() -> None:
    """Of commands that are named in sentences and tables: `clipsearch search --paths`."""
    for path in pages():
        text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.M | re.S)
        for code in re.findall(r"`clipsearch ([^`]+)`", text):
            name, *words = code.split()
            if name not in COMMANDS:
                assert name.startswith(("-", "COMMAND", "[")), f"{path.name}: {code}"
                continue
            known = run_help(name)
            for flag in (word.split("=")[0] for word in words if word.startswith("--")):
                assert re.search(rf"{flag}\b", known), f"{path.name}: `clipsearch {code}`: {flag}"
