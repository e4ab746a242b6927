"""The map: near in meaning is near on it, the same seed gives the same, and the file is safe."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import clipsearch
from clipsearch.cli import main
from clipsearch.config import resolve
from clipsearch.encoders import Encoder
from clipsearch.errors import QueryError, UsageError
from clipsearch.images import make_thumbnail
from clipsearch.library import Batch, FileState, Library, NewItem
from clipsearch.meaning_map import MeaningMap, lay_out, write_map
from clipsearch.vectors import unit_rows

SCENES, EACH = 3, 20
COUNT = SCENES * EACH
EVIL = "</script><script>alert(1)</script>.jpg"


@pytest.fixture(scope="module")
def encoder(tiny_model_dir: Path) -> Encoder:
    return clipsearch.load_encoder(f"local-dir:{tiny_model_dir}")


@pytest.fixture(scope="module")
def library(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """Three scenes of 20 pictures each, of which 50 have a thumbnail."""
    folder = tmp_path_factory.mktemp("map")
    random = np.random.default_rng(0)
    scenes = random.standard_normal((SCENES, encoder.space.dim))
    rows = np.repeat(scenes, EACH, axis=0) + 0.1 * random.standard_normal((COUNT, 16))
    names = [f"{number:032x}" for number in range(COUNT)]
    with Library.open(folder / "test.clipsearch", create=True) as opened:
        with opened.writer() as writer:
            root = writer.add_root(folder).id
            writer.add_space(
                encoder.space, address=encoder.address, runtime="torch", precision="f32"
            )
            writer.activate_space(encoder.space.id)
            items = [NewItem(name, 40, 30, "PNG", 99) for name in names]
            paths = [EVIL, *(f"{name}.png" for name in names[1:])]
            states = [
                FileState(root, path, 99, 1, 1, name)
                for path, name in zip(paths, names, strict=True)
            ]
            vectors = (encoder.space.id, names, unit_rows(rows.astype(np.float32)))
            writer.commit(Batch(items, vectors, states))
        for name in names[:50]:
            file = opened.path / "thumbs" / name[:2] / f"{name}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(make_thumbnail(Image.new("RGB", (90, 60), (200, 40, 40))))
        yield opened


@pytest.fixture(scope="module")
def laid_out(library: Library, encoder: Encoder) -> MeaningMap:
    return lay_out(library, settings=resolve(), encoder=encoder)


def test_what_is_near_in_meaning_is_near_on_the_map(
    library: Library, laid_out: MeaningMap, encoder: Encoder
) -> None:
    assert sorted(laid_out.items) == library.present_items().tolist()
    middle = (laid_out.points.min(axis=0) + laid_out.points.max(axis=0)) / 2
    assert np.allclose(middle, 0.5, atol=0.05)  # also along the shorter side
    scene = (np.array(laid_out.items) - 1) // EACH
    apart = np.linalg.norm(laid_out.points[:, None] - laid_out.points[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (scene[apart.argmin(axis=1)] == scene).all()
    names = [region.name for region in laid_out.regions]
    assert len(set(names)) == len(names) > 1
    members = np.concatenate([region.members for region in laid_out.regions])
    assert sorted(members.tolist()) == list(range(COUNT))
    again = lay_out(library, settings=resolve(), encoder=encoder)
    assert np.array_equal(again.points, laid_out.points)
    assert [region.name for region in again.regions] == names


def data_of(page: str) -> dict[str, object]:
    found = re.search(r"^const data = (\{.*\});$", page, re.MULTILINE)
    assert found is not None
    data: dict[str, object] = json.loads(found[1])
    return data


def test_the_file_holds_everything_and_no_name_can_leave_its_text(
    library: Library, laid_out: MeaningMap, tmp_path: Path
) -> None:
    file = tmp_path / "map.html"
    assert write_map(library, laid_out, file, title="mine") == 50
    page = file.read_text()
    assert EVIL not in page
    assert page.count("</script>") == 1
    assert "http:" not in page and "https:" not in page  # nothing is fetched
    data = data_of(page)
    assert isinstance(data["names"], list)
    assert any(name.endswith(EVIL) for name in data["names"])
    assert write_map(library, laid_out, file, title="mine", budget_mb=0) == 0
    assert data_of(file.read_text())["sheets"] == []


def test_a_sample_is_said_and_bounds_are_refused(library: Library, encoder: Encoder) -> None:
    told: list[str] = []
    some = lay_out(library, settings=resolve(), limit=30, encoder=encoder, notify=told.append)
    assert (len(some.items), some.total) == (30, COUNT)
    assert "sample of 30 of 60" in told[0]
    with pytest.raises(UsageError):
        lay_out(library, settings=resolve(), limit=3)


def test_the_command_writes_and_never_overwrites_unasked(
    library: Library, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--library", str(library.path)]
    file = tmp_path / "map.html"
    assert main(["map", "--to", str(file), "--json", *place]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["pictures"], said["thumbnails"]) == (COUNT, 50)
    assert main(["map", "--to", str(file), *place]) == 2
    assert main(["map", "--to", str(tmp_path / "map.jpg"), *place]) == 2
    empty = tmp_path / "empty.clipsearch"
    Library.open(empty, create=True).close()
    code = main(["map", "--to", str(tmp_path / "e.html"), "--library", str(empty)])
    assert code == QueryError.exit_code
