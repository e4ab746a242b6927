"""A library as a map: near in meaning is near on it, and its regions have names. One HTML file."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipsearch.config import Settings
from clipsearch.counting import counted
from clipsearch.encoders import Encoder, load_encoder
from clipsearch.errors import DependencyError, QueryError, UsageError
from clipsearch.images import THUMBNAIL_SUFFIX
from clipsearch.images.thumbnails import read_tile
from clipsearch.library import Library, SpaceRecord
from clipsearch.tagging.prototypes import Prototypes
from clipsearch.tagging.vocabulary import everyday
from clipsearch.vectors import Matrix, unit_rows

DEFAULT_LIMIT = 4000  # pictures: t-SNE takes about half a minute for them
DEFAULT_BUDGET_MB = 12.0
LEAST, MOST = 10, 20_000  # pictures
_KEPT = 50  # directions of the vectors that the layout sees: noise aside, and faster
_PER_REGION, _MOST_REGIONS = 40, 40
_TILE, _SHEET = 64, 16  # pixels, tiles a side of a sheet
_QUALITY = 75
_TEMPLATE = "a photo of {}"
Layout = Literal["tsne", "umap"]
Points = NDArray[np.float64]  # (n, 2)


@dataclass(frozen=True)
class Region:
    """A group of pictures that lie together, by places, and the word that fits it best."""

    name: str
    members: NDArray[np.int64]


@dataclass(frozen=True)
class MeaningMap:
    """Items with their places, in [0, 1] x [0, 1], and the regions. ``total`` is the library's."""

    items: list[int]
    points: Points
    regions: list[Region]
    total: int


def lay_out(
    library: Library,
    *,
    settings: Settings,
    limit: int = DEFAULT_LIMIT,
    layout: Layout = "tsne",
    seed: int = 0,
    encoder: Encoder | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> MeaningMap:
    """Places at most ``limit`` pictures, in a larger library a sample; the same seed, the same map.

    QueryError for a library of fewer than 10 pictures, UsageError for a limit out of bounds,
    DependencyError where the layout's package is missing.
    """
    if not LEAST <= limit <= MOST:
        raise UsageError(reason=f"The limit must be between {LEAST} and {MOST:,}, not {limit}")
    _require("sklearn", "map")
    if layout == "umap":
        _require("umap", "umap")
    space = library.active_space()
    ids, rows = (np.empty(0, np.int64), None) if space is None else library.vectors(space.id)
    there = np.isin(ids, library.present_items())
    if space is None or rows is None or there.sum() < LEAST:
        raise QueryError(reason=f"A map needs at least {LEAST} pictures: clipsearch index FOLDER")
    ids, rows = ids[there], rows[there]
    chosen = np.random.default_rng(seed).permutation(len(ids))[:limit]
    if len(ids) > limit:
        notify(f"A sample of {limit:,} of {counted(len(ids), 'picture')} is laid out (--limit)")
    sample = rows[chosen]
    notify("Laying out")
    points = _placed(sample, layout, seed)
    groups = _regions(points, seed)
    notify("Naming the regions")
    own = settings.of(library.path)
    names = _names(space, sample, groups, rows.mean(axis=0), own, encoder, notify)
    regions = [Region(name, members) for name, members in zip(names, groups, strict=True)]
    return MeaningMap(ids[chosen].tolist(), points, regions, len(ids))


def _require(module: str, extra: str) -> None:
    try:
        __import__(module)
    except ImportError as error:
        raise DependencyError(
            reason=f"The map needs a package: pip install 'clipsearch[{extra}]'"
        ) from error


def _placed(rows: Matrix, layout: Layout, seed: int) -> Points:
    """(n, 2) in [0, 1]: t-SNE (van der Maaten and Hinton 2008) of the strongest directions."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    kept = min(_KEPT, *rows.shape)
    flat = PCA(kept, random_state=seed).fit_transform(rows.astype(np.float64))
    if layout == "umap":
        from umap import UMAP

        placed = UMAP(random_state=seed, n_neighbors=min(15, len(rows) - 1)).fit_transform(flat)
    else:
        perplexity = min(30.0, (len(rows) - 1) / 3)
        placed = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(flat)
    low, high = np.quantile(placed, (0.005, 0.995), axis=0)  # a stray must not shrink the rest
    middle, side = (low + high) / 2, max(float((high - low).max()), 1e-9)
    scaled = (placed - middle) / side + 0.5
    return np.asarray(np.clip(scaled, -0.05, 1.05), dtype=np.float64)


def _regions(points: Points, seed: int) -> list[NDArray[np.int64]]:
    from sklearn.cluster import KMeans

    count = max(2, min(_MOST_REGIONS, len(points) // _PER_REGION))
    labels = KMeans(count, n_init=4, random_state=seed).fit_predict(points)
    groups = [np.flatnonzero(labels == label) for label in range(count)]
    return sorted((group for group in groups if len(group)), key=len, reverse=True)


def _names(
    space: SpaceRecord,
    rows: Matrix,
    groups: Sequence[NDArray[np.int64]],
    middle: NDArray[np.float32],
    settings: Settings,
    encoder: Encoder | None,
    notify: Callable[[str], None],
) -> list[str]:
    """For each group the concept that fits it better than it fits the library; each once."""
    concepts = everyday().concepts
    sentences = [[[_TEMPLATE.replace("{}", word) for word in one.wordings]] for one in concepts]

    def loaded() -> Encoder:
        return encoder or load_encoder(
            space.address, settings=settings, space=space.space, notify=notify
        )

    prototypes = Prototypes(space.space, loaded, settings.cache_dir).of(sentences)
    centres = unit_rows(np.stack([rows[group].mean(axis=0) for group in groups]))
    fits = (centres - middle) @ prototypes.T
    names: list[str] = []
    for scores in fits:
        order = np.argsort(-scores, kind="stable")
        names.append(next(n for i in order if (n := concepts[i].name) not in names))
    return names


# --- the file -------------------------------------------------------------------------------


def write_map(
    library: Library,
    laid_out: MeaningMap,
    destination: Path,
    *,
    title: str,
    budget_mb: float = DEFAULT_BUDGET_MB,
) -> int:
    """Writes the map with thumbnails up to a budget; returns how many pictures have one.

    The file needs nothing else and fetches nothing. Raises OSError.
    """
    records = library.items(laid_out.items)
    paths = library.paths(laid_out.items)
    thumbnails = [
        library.path / "thumbs" / content[:2] / f"{content}{THUMBNAIL_SUFFIX}"
        for content in (
            records[item].content_hash if item in records else "" for item in laid_out.items
        )
    ]
    sheets, tiled = _sheets(thumbnails, budget_mb * 1e6)
    data: dict[str, Any] = {
        "title": title,
        "total": laid_out.total,
        "tile": _TILE,
        "side": _SHEET,
        "sheets": sheets,
        "points": [[round(float(x), 4), round(float(y), 4)] for x, y in laid_out.points],
        "tiles": tiled,
        "names": [str(paths[item][0]) if item in paths else "" for item in laid_out.items],
        "taken": [records[item].taken_at if item in records else None for item in laid_out.items],
        "regions": [
            {
                "name": region.name,
                "count": len(region.members),
                "at": [round(float(x), 4) for x in np.median(laid_out.points[region.members], 0)],
                "members": region.members.tolist(),
            }
            for region in laid_out.regions
        ],
    }
    page = Path(__file__).with_name("meaning_map.html").read_text(encoding="utf-8")
    # JSON in ASCII, and no "</script>": whatever a file is called, it stays text.
    text = json.dumps(data).replace("<", "\\u003c")
    destination.write_text(page.replace('"THE DATA"', text), encoding="utf-8")
    return sum(tile >= 0 for tile in tiled)


def _sheets(thumbnails: Sequence[Path], budget_bytes: float) -> tuple[list[str], list[int]]:
    """Pictures of many tiles as data addresses, and each thumbnail's tile, -1 without one."""
    sheets: list[str] = []
    tiled = [-1] * len(thumbnails)
    per_sheet = _SHEET * _SHEET
    used = 0.0
    start = 0
    while start < len(thumbnails):
        some = thumbnails[start : start + per_sheet]
        rows = math.ceil(len(some) / _SHEET)
        sheet = Image.new("RGB", (_SHEET * _TILE, rows * _TILE))
        found = []
        for place, thumbnail in enumerate(some):
            tile = read_tile(thumbnail, _TILE)
            if tile is not None:
                sheet.paste(tile, (place % _SHEET * _TILE, place // _SHEET * _TILE))
                found.append(place)
        buffer = io.BytesIO()
        sheet.save(buffer, "JPEG", quality=_QUALITY)
        encoded = base64.b64encode(buffer.getvalue()).decode()
        if used + len(encoded) > budget_bytes:
            break
        used += len(encoded)
        for place in found:
            tiled[start + place] = len(sheets) * per_sheet + place
        sheets.append(f"data:image/jpeg;base64,{encoded}")
        start += per_sheet
    return sheets, tiled
