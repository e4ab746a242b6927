"""The command line: what is printed where, which exit code, and what is imported for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clipsearch.cli import COMMANDS

Run = Callable[..., subprocess.CompletedProcess[str]]

# Runs the command line and reports on its last stderr line which heavy packages were imported.
PROBE = """
import sys
from clipsearch.cli import main
code = main(sys.argv[1:])
heavy = {"torch", "open_clip", "gradio", "fastapi", "pandas", "matplotlib", "faiss"}
heavy |= {"PIL", "openvino.tools.ovc"} if sys.argv[1] == "search" else set()
print("IMPORTED", *sorted(heavy & set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def indexed(embedded_library: Path) -> dict[str, str]:
    """The environment of a library that holds the real photos, made with the embedded model."""
    return {**os.environ, "CLIPSEARCH_LIBRARY": str(embedded_library)}


def clipsearch(
    environment: dict[str, str], *arguments: str | Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "clipsearch", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_costs_no_heavy_import_and_documents_every_flag(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().endswith("IMPORTED"), done.stderr
    assert "usage: clipsearch" in done.stdout
    if arguments[0] == "query-help":
        assert "--json" in done.stdout  # the one command without a library
    elif len(arguments) > 1:
        assert "--library" in done.stdout
    else:
        assert all(name in done.stdout for name in COMMANDS)


def test_a_text_search_imports_neither_torch_nor_gradio(indexed: dict[str, str]) -> None:
    assert clipsearch(indexed, "search", "a cat").returncode == 0  # the search cache is there now
    done = subprocess.run(
        [sys.executable, "-c", PROBE, "search", "a cat", "--top", "1", "--json"],
        env=indexed,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().endswith("IMPORTED"), done.stderr
    assert json.loads(done.stdout)["path"].endswith("cat.png")


def test_a_search_asks_the_network_for_nothing(indexed: dict[str, str]) -> None:
    """OpenVINO would tell its makers that it was imported, from a process of its own."""
    probe = """
import os, sys
def refuse(event, arguments):
    if event.startswith("socket.") or event in ("os.fork", "subprocess.Popen"):
        os.write(2, f"{event} {arguments}\\n".encode())
        os._exit(99)
sys.addaudithook(refuse)
sys.argv[0] = "clipsearch"
from clipsearch.cli import run
run()
"""
    done = subprocess.run(
        [sys.executable, "-c", probe, "search", "a cat", "--top", "1", "--paths"],
        env=indexed,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("cat.png")


def test_a_search_that_cannot_load_its_guess_answers_all_the_same(
    indexed: dict[str, str], tmp_path: Path
) -> None:
    """The model is loaded early by a guess from the search cache; the database decides."""
    path = tmp_path / "copy.clipsearch"
    shutil.copytree(indexed["CLIPSEARCH_LIBRARY"], path)
    environment = {**indexed, "CLIPSEARCH_LIBRARY": str(path)}
    expected = clipsearch(indexed, "search", "a cat", "--json").stdout
    assert clipsearch(environment, "search", "a cat", "--json").stdout == expected
    for wrong in ("0123456789abcdef", "manifest.json"):
        (path / "index" / wrong).mkdir()
        (path / "index" / wrong / "manifest.json").touch()
        assert clipsearch(environment, "search", "a cat", "--json").stdout == expected


def test_an_answer_that_cannot_be_written_is_no_success(indexed: dict[str, str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    for given in ("search cat", "info --json"):  # the second is written at the very end
        command = f"{sys.executable} -m clipsearch {given} > /dev/full"
        done = subprocess.run(
            ["bash", "-c", command], env=indexed, capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 12
        assert b"No space left" in done.stderr
        assert done.stderr.count(b"\n") == 1


def test_an_index_folder_without_permission_is_a_cache_that_is_not_there(
    embedded_library: Path, tmp_path: Path
) -> None:
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    if os.geteuid() == 0 and shutil.which(drop[0]) is None:
        pytest.skip("root may read every folder")
    library = tmp_path / "copy.clipsearch"
    shutil.copytree(embedded_library, library)
    (library / "index").chmod(0)
    command = [sys.executable, "-m", "clipsearch", "search", "cat", "--paths"]
    done = subprocess.run(
        [*(drop if os.geteuid() == 0 else []), *command, "--library", str(library)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    (library / "index").chmod(0o700)
    assert done.returncode == 0, done.stderr
    assert "cat.png" in done.stdout


def test_search_prints_data_on_stdout_in_every_form(indexed: dict[str, str]) -> None:
    plain = clipsearch(indexed, "search", "a", "cat", "--top", "3", "--all")
    assert plain.returncode == 0, plain.stderr
    assert len(plain.stdout.splitlines()) == 3
    assert "cat.png" in plain.stdout.splitlines()[0]
    lines = clipsearch(
        indexed, "search", "a cat cutoff:none", "--top", "3", "--json"
    ).stdout.splitlines()
    hits = [json.loads(line) for line in lines]
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    assert {"rank", "score", "path", "item"} <= set(hits[0])
    assert hits[0]["score"] >= hits[1]["score"] >= hits[2]["score"]
    paths = clipsearch(
        indexed, "search", "a cat", "--all", "--top", "3", "--paths"
    ).stdout.splitlines()
    assert paths == [hit["path"] for hit in hits]
    nul = clipsearch(indexed, "search", "a cat", "--all", "--top", "3", "--paths", "--null").stdout
    assert nul.split("\0")[:-1] == paths


def test_what_is_not_there_gives_nothing_unless_asked_for(indexed: dict[str, str]) -> None:
    done = clipsearch(indexed, "search", "a submarine", "--json")
    assert (done.returncode, done.stdout) == (0, "")
    assert "Nothing found" in done.stderr
    assert "cutoff:none" in done.stderr
    (line,) = clipsearch(
        indexed, "search", "a submarine", "--all", "--top", "1", "--json"
    ).stdout.splitlines()
    assert json.loads(line)["probability"] < 0.5
    none_pass = clipsearch(indexed, "search", "rating:5")
    assert (none_pass.returncode, none_pass.stdout) == (0, "")
    assert "no picture passes" in none_pass.stderr
    first = clipsearch(indexed, "search", "a cup of coffee", "--json").stdout.splitlines()[0]
    assert json.loads(first)["probability"] > 0.5


def test_similar_finds_the_sibling_and_leaves_itself_out(
    indexed: dict[str, str], real_photos: Path, tmp_path: Path
) -> None:
    inside = clipsearch(indexed, "similar", real_photos / "cheetah.jpg", "--paths", "--top", "3")
    assert inside.returncode == 0, inside.stderr
    names = [Path(line).name for line in inside.stdout.splitlines()]
    assert "cheetah.jpg" not in names
    from PIL import Image

    changed = tmp_path / "other.jpg"
    Image.open(real_photos / "cat.png").convert("RGB").resize((300, 200)).save(changed)
    outside = clipsearch(indexed, "similar", changed, "--paths", "--top", "1")
    assert Path(outside.stdout.strip()).name == "cat.png"


def test_a_picture_and_words_together_are_searched(
    indexed: dict[str, str], real_photos: Path
) -> None:
    done = clipsearch(
        indexed, "search", "--image", real_photos / "coins.png", "coins", "--paths", "--top", "1"
    )
    assert Path(done.stdout.strip()).name == "coins.png"


def test_the_sheet_is_a_picture_of_the_answers(indexed: dict[str, str], tmp_path: Path) -> None:
    from PIL import Image

    sheet = tmp_path / "new" / "sheet.jpg"
    done = clipsearch(indexed, "search", "an animal", "--all", "--top", "4", "--open-sheet", sheet)
    assert done.returncode == 0, done.stderr
    with Image.open(sheet) as picture:
        assert picture.width > 4 * 180
    refused = clipsearch(indexed, "search", "an animal", "--open-sheet", tmp_path / "sheet.doc")
    assert refused.returncode == 2
    assert "sheet.doc" in refused.stderr


def test_info_tells_what_the_library_holds(indexed: dict[str, str]) -> None:
    record = json.loads(clipsearch(indexed, "info", "--json").stdout)
    assert record["items"] == 25
    assert record["files"] == 25
    assert record["failures"] == 0
    assert record["model"] == "embedded"
    assert record["faiss"].startswith("faiss")
    text = clipsearch(indexed, "info").stdout
    assert "25 pictures" in text or "pictures  25" in text


def test_models_are_listed_and_the_librarys_is_changed(
    call_cli: Run, embedded_library: Path
) -> None:
    listed = [json.loads(line) for line in call_cli("models", "--json").stdout.splitlines()]
    assert {"embedded", "ViT-B-32-256/datacomp_s34b_b86k"} <= {model["address"] for model in listed}
    used = call_cli("models", "use", "embedded", "--json")
    assert used.returncode == 0, used.stderr
    assert json.loads(used.stdout.splitlines()[-1])["model"] == "embedded"
    assert json.loads(call_cli("info", "--json").stdout)["model"] == "embedded"
    wrong = call_cli("models", "use", "ViT-B-23/openai")
    assert wrong.returncode == 31
    assert "ViT-B-32" in wrong.stderr


def test_check_forget_and_backup_report_what_they_did(
    call_cli: Run, real_photos: Path, tmp_path: Path, tiny_model_dir: Path
) -> None:
    model = f"local-dir:{tiny_model_dir}"
    assert call_cli("index", real_photos, "--model", model).returncode == 0
    assert "is sound" in call_cli("check").stdout
    forgot = call_cli("forget", real_photos / "cat.png", "--json")
    assert json.loads(forgot.stdout)["items"] == 1
    assert "clipsearch index adds it again" in forgot.stderr
    assert (real_photos / "cat.png").exists()
    assert json.loads(call_cli("info", "--json").stdout)["items"] == 24
    assert call_cli("forget", tmp_path / "never.jpg").returncode == 26
    copy = tmp_path / "copy.db"
    assert call_cli("backup", copy).returncode == 0
    assert copy.read_bytes().startswith(b"SQLite format 3")
    assert call_cli("backup", copy).returncode != 0, "an existing backup is never overwritten"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ([], 2, "usage: clipsearch"),
        (["serach", "a cat"], 2, "serach"),
        (["search"], 2, "Say what to search for"),
        (["search", "a cat"], 21, "clipsearch index FOLDER"),
        (["info"], 21, "clipsearch index FOLDER"),
        (["index"], 2, "clipsearch index"),
        (["index", "no-such-folder"], 2, "no-such-folder"),
        (["models", "use"], 2, "models use ADDRESS"),
        (["train"], 2, "--captions"),
    ],
)
def test_wrong_usage_says_what_to_do_instead(
    call_cli: Run, arguments: list[str], code: int, told: str
) -> None:
    done = call_cli(*arguments)
    assert done.returncode == code, done.stderr
    assert told in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["info", "--library", "~nosuchuser/x"],
        ["index", "~nosuchuser/x"],
        ["similar", "~nosuchuser/x"],
        ["search", "--image=~nosuchuser/x"],
        ["search", "image:~nosuchuser/x"],
        ["search", "a", "--more-like", "~nosuchuser/x"],
        ["tag", "--add", "x", "~nosuchuser/x"],
        ["forget", "~nosuchuser/x"],
        ["backup", "~nosuchuser/x"],
        ["roots", "move", "~nosuchuser/x", "new"],
        ["export", "--all", "--to", "~nosuchuser/x.jsonl"],
        ["map", "--to", "~nosuchuser/x.html"],
        ["train", "--captions", "~nosuchuser/x.csv", "--out", "out"],
        ["evaluate", "--model", "local-dir:~nosuchuser/x", "--data", "~nosuchuser/x"],
    ],
)
def test_a_home_folder_that_nobody_has_is_named_as_that(
    call_cli: Run, embedded_library: Path, library_path: Path, arguments: list[str]
) -> None:
    library_path.symlink_to(embedded_library)
    done = call_cli(*arguments)
    assert done.returncode == 2, done.stderr
    assert "There is no user nosuchuser" in done.stderr
    assert "./~nosuchuser/x" in done.stderr


def test_a_name_that_begins_with_a_tilde_is_that_file(
    call_cli: Run, embedded_library: Path, library_path: Path, real_photos: Path, tmp_path: Path
) -> None:
    library_path.symlink_to(embedded_library)
    (tmp_path / "~nosuchuser.png").write_bytes((real_photos / "cat.png").read_bytes())
    done = call_cli("similar", "~nosuchuser.png", "--paths")
    assert done.returncode == 0, done.stderr
    assert "cat.png" in done.stdout


def test_an_empty_library_says_how_to_fill_it(call_cli: Run) -> None:
    assert call_cli("models", "use", "embedded").returncode == 0
    done = call_cli("search", "a cat")
    assert done.returncode == 0
    assert done.stdout == ""
    assert "clipsearch index FOLDER" in done.stderr


def test_a_picture_that_is_not_there_or_not_a_picture_is_named(
    indexed: dict[str, str], tmp_path: Path
) -> None:
    missing = clipsearch(indexed, "search", "--image", tmp_path / "gone.jpg")
    assert missing.returncode == 44
    assert "gone.jpg" in missing.stderr
    (tmp_path / "empty.jpg").touch()
    assert clipsearch(indexed, "similar", tmp_path / "empty.jpg").returncode == 43
    (tmp_path / "text.jpg").write_text("hello")
    assert clipsearch(indexed, "similar", tmp_path / "text.jpg").returncode == 41


def test_a_closed_pipe_is_no_error(indexed: dict[str, str]) -> None:
    command = f"{sys.executable} -m clipsearch search cat --paths | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env=indexed,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_version_is_the_packages() -> None:
    from clipsearch import __version__

    assert clipsearch(dict(os.environ), "--version").stdout.strip() == f"clipsearch {__version__}"
