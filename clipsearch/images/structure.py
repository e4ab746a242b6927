"""Whether two pictures agree in fine structure, such as text, at the smaller one's resolution.

The larger one is brought onto the smaller one's grid; one tone curve and one linear filter for the
whole picture then stand for whatever re-encoding, resizing or brightening did. What they leave is
small everywhere in versions of one picture. Where a word or a digit differs, it is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Verdict = Literal["same", "other", "unresolved"]
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
Grey = NDArray[np.uint8]  # (h, w)
Floats = NDArray[np.float32]

# Measured by benchmarks/dupes.py words.
_MOST_LEFT = 3.15  # of what is left in the worst place, in units of what is usual
_MOST_LEFT_EVERYWHERE, _MOST_LEFT_ALIGNED = (
    0.3,
    0.15,
)  # share of the structure's variance that is usually left
_DAMAGED = 0.05  # the same, from which on thin text cannot be told from other text
# Of a smaller version: nothing comes near the bar, and other text would have been noticed.
_MOST_HIDDEN = 0.7  # of the structure of a usual place could differ without being too much
_DOUBTFUL = 2.6  # of what is left, as above: versions of photos have less
_TEXT_SCALES = (
    1.5,
    2,
    3,
)  # strokes thinner than so many pixels of the smaller picture are small text
_CELL = 4  # pixels; a place is 2 x 2 cells
_RINGING = 2  # cells: compressed with loss, an edge is felt in its whole block of 8 x 8
_OCTAVES = 4  # sizes of what may differ: from a comma to a headline
_STRUCTURE = 100.0  # variance in a place from which on it shows something, squared grey levels
_ROUNDING = 16.0  # squared grey levels that mean nothing
_LEAST_RELATIVE, _USUAL_RELATIVE = 0.01, 0.02
_MOST_GAIN = 0.4  # of the contrast of one place
_LEAST_SIDE = 24  # pixels, for a picture to be compared at all
_REACH = 2  # pixels: the filter is 5 x 5
_MOST_SAMPLES = 8_000
_MOST_CUT = 0.015  # of a side: what a version may lack at an edge
_TINY, _MUCH_LARGER = 100, 3  # pixels; such a thumbnail shows no words of such a picture
_LARGE = 600  # pixels: from this side on the middle is enough to tell an enlargement by
_MOST_STEPS = 20  # of registration at each size
_LEVELS = np.arange(256)
_SMOOTHING = np.exp(-0.5 * (np.arange(-24, 25) / 6.0) ** 2)
_LEAST_ENLARGED = 1.15  # times the smaller one's width
_SHARPNESS = 0.62  # share of what is lost: 95 of 100 originals lose 0.84, enlargements up to 0.52
# Text that the smaller picture does not resolve, by what is lost within what becomes one pixel.
_LOST = 15.0**2  # variance, squared grey levels
_LOST_SHARE = 0.5  # of all variance in a place: strokes are thinner than about a pixel
_LOST_PIXELS = 0.3  # share of a place's pixels: less is a line, or an edge
_EVEN = 10  # grey levels from the ground
_EVEN_SHARE, _LINES = 0.35, 4  # of so many places so much is ground: lines of text
_WORD_EVEN_SHARE = 0.55  # the same of one place, a word or a number
_MOSTLY, _MOST_PLACES = 0.7, 500  # that are looked at for their ground
_PLACE = 8  # pixels of the smaller picture


@dataclass(frozen=True)
class Agreement:
    """``left`` is what differs in the worst place, in units of what is usual in this pair."""

    verdict: Verdict
    left: float
    is_exact: bool  # not one grey level differs, at the same size
    box: Box | None = None  # the part of the larger one that the smaller one shows, if not all

    @property
    def is_plainly_other(self) -> bool:
        """Other by so much that no closer look would find them the same."""
        return self.verdict == "other" and self.left > 2 * _MOST_LEFT


def compare(one: Image.Image, other: Image.Image) -> Agreement:
    """Compares two grey upright pictures, mode L, whose shapes are nearly the same.

    "unresolved": the larger one shows text that the smaller one is too small to show, so that
    nobody can say whether it is this text.
    """
    large, small = (
        (one, other) if one.width * one.height >= other.width * other.height else (other, one)
    )
    if large.size == small.size and large.tobytes() == small.tobytes():
        return Agreement("same", 0.0, is_exact=True)
    if min(small.size) < _LEAST_SIDE:
        return Agreement("unresolved", 0.0, is_exact=False)
    box: Box | None = None
    left, everywhere, hidden = _left(large, small, None)
    if left > _MOST_LEFT or everywhere > _MOST_LEFT_EVERYWHERE:
        # Perhaps an edge was cut off, or it was resized from another corner.
        box = _shown_by(large, small)
        left, everywhere, hidden = _left(large, small, box)
        if left > _MOST_LEFT or everywhere > _MOST_LEFT_ALIGNED:
            return Agreement("other", left, is_exact=False)
    halved = (small.width // 2, small.height // 2)
    is_tiny = min(small.size) < _TINY and large.width > _MUCH_LARGER * small.width
    is_lost = is_tiny or _loses_text(large, small.size)
    is_damaged = everywhere > _DAMAGED and _loses_text(small, halved)
    is_smaller = large.width >= _LEAST_ENLARGED * small.width
    is_unsure = is_smaller and (
        left > _DOUBTFUL or (hidden > _MOST_HIDDEN and _has_small_text(large, small))
    )
    verdict: Verdict = "unresolved" if is_lost or is_damaged or is_unsure else "same"
    return Agreement(verdict, left, False, box)


def differs_in_colour(one: Image.Image, other: Image.Image, box: Box | None) -> bool:
    """Whether a channel of colour differs in a place, such as by letters as light as their ground.

    ``box`` as in ``Agreement``, for channels of any size. Channels too small to tell do not differ.
    """
    is_larger = one.width * one.height >= other.width * other.height
    large, small = (one, other) if is_larger else (other, one)
    return min(small.size) >= _LEAST_SIDE and _left(large, small, box)[0] > _MOST_LEFT


def shows_nothing(grey: Image.Image) -> bool:
    """True of one colour, such as a blank page or a black frame, which is a copy of nothing."""
    small = np.asarray(grey.reduce(max(1, min(grey.size) // 256)), dtype=np.float32)
    return float(np.quantile(small, 0.999) - np.quantile(small, 0.001)) < 12.0


def is_enlarged(large: Image.Image, small: Image.Image) -> bool:
    """Whether the larger of two grey versions of one picture shows no more than the smaller one.

    An original loses as much sharpness when it is made as small as the other as that one loses
    when it is made smaller once more. An enlargement has little to lose.
    """
    factor = large.width / small.width
    if factor < _LEAST_ENLARGED:
        return False
    if min(small.size) >= _LARGE:
        large, small = _middle(large, factor), _middle(small, 1.0)
    smaller = (max(1, round(small.width / factor)), max(1, round(small.height / factor)))
    own = _sharpness(small, small.resize(smaller, Image.Resampling.LANCZOS))
    pixels = small.resize(large.size, Image.Resampling.NEAREST)
    lost = min(_sharpness(large, small), _away_at_edges(large, pixels, small))
    return lost < _SHARPNESS * own


def _middle(image: Image.Image, factor: float) -> Image.Image:
    """Half of the width and height of a picture, and the same part of it ``factor`` times as large.

    It has edges enough to tell by.
    """
    width, height = round(image.width / factor), round(image.height / factor)
    edges = (width // 4, height // 4, width - width // 4, height - height // 4)
    left, top, right, bottom = (round(edge * factor) for edge in edges)
    return image.crop((left, top, right, bottom))


def _sharpness(large: Image.Image, small: Image.Image) -> float:
    """What a picture loses by being made as small as another version, per height of its edges."""
    again = large.resize(small.size, Image.Resampling.LANCZOS)
    return _away_at_edges(large, again.resize(large.size, Image.Resampling.BICUBIC), small)


def _away_at_edges(large: Image.Image, again: Image.Image, small: Image.Image) -> float:
    soft = np.asarray(small.resize(large.size, Image.Resampling.BICUBIC), dtype=np.float32)
    slope = np.abs(np.diff(soft, axis=1))[:-1] + np.abs(np.diff(soft, axis=0))[:, :-1]
    steep = slope >= np.quantile(slope, 0.95)
    height = float(slope[steep].mean()) * large.width / small.width
    away = np.asarray(large, dtype=np.float32) - np.asarray(again, dtype=np.float32)
    return float(np.sqrt(np.square(away[:-1, :-1][steep]).mean())) / max(height, 1.0)


def _left(large: Image.Image, small: Image.Image, box: Box | None) -> tuple[float, float, float]:
    """What is left in the worst place, the usual share of the structure that is left, and the share
    of it that could differ in a usual place and yet be too little for another picture.
    """
    on_grid = _resized(large, small.size, box)
    target = np.asarray(small)
    on_grid = on_grid.point(_tones(np.asarray(on_grid), target))
    weights, offset = _filter(np.asarray(on_grid), target)
    side = 2 * _REACH + 1
    kernel = ImageFilter.Kernel((side, side), weights.ravel().tolist(), scale=1, offset=offset)
    inner = slice(_REACH, -_REACH)
    expected = np.asarray(on_grid.filter(kernel), dtype=np.float32)[inner, inner]
    rest = target[inner, inner].astype(np.float32) - expected
    worst = everywhere = hidden = 0.0
    for octave in range(_OCTAVES):
        if min(rest.shape) < 6 * _CELL:
            break
        relative, excess, unseen = _places(rest, expected)
        if octave == 0:
            everywhere, hidden = relative, unseen
        worst = max(worst, excess)
        rest, expected = _halved(rest), _halved(expected)
    return worst, everywhere, hidden


def _places(rest: Floats, expected: Floats) -> tuple[float, float, float]:
    """The usual ratio of what is left to structure, the root of the largest excess over it, and the
    usual ratio of what would be too much to structure.
    """
    means = _cells(rest)
    around, mean = _joined(_mean_around(means, 2)), _joined(means)
    left = np.maximum(_joined(_cells(rest * rest)) - 2 * around * mean + around * around, 0)
    level = _joined(_cells(expected))
    structure = np.maximum(_joined(_cells(expected * expected)) - level * level, 0)
    # A place may be a little flatter or crisper than the whole, but not show nothing at all.
    follows = _joined(_cells(rest * expected)) - mean * level
    gain = np.clip(follows / (structure + _ROUNDING), -_MOST_GAIN, _MOST_GAIN)
    left = np.maximum(left - 2 * gain * follows + gain * gain * structure, 0)
    noise = float(np.median(left[structure <= np.median(structure)]))
    shown = structure > _STRUCTURE
    enough = int(shown.sum()) > 30
    relative = _USUAL_RELATIVE
    if enough:  # by the stronger half: of faint lines, noise is a large share
        shown &= structure >= np.median(structure[shown])
        relative = float(np.median(np.maximum(left[shown] - noise, 0) / structure[shown]))
    # Between two that were never compressed or resized, every level that differs means something.
    lossy = min(1.0, float(np.median(left[shown])) if enough else 1.0)
    floor = _ROUNDING * (0.25 + 0.75 * lossy)
    share = max(relative, _LEAST_RELATIVE * lossy)
    usual = 2 * noise + floor + _greatest_around(structure, _RINGING) * share
    shown = structure > _STRUCTURE
    hidden = np.median(_MOST_LEFT**2 * usual[shown] / structure[shown]) if shown.any() else 0.0
    return relative, float(np.sqrt((left / usual).max())), float(hidden)


def _resized(image: Image.Image, size: tuple[int, int], box: Box | None) -> Image.Image:
    if image.size == size and box is None:
        return image
    if size[0] > image.width:
        return image.resize(size, Image.Resampling.BICUBIC, box=box)
    return image.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)


def _tones(given: Grey, target: Grey) -> list[int]:
    """For each grey level of one picture that of the other, smoothed over neighbouring levels."""
    step = max(1, int((given.size / 200_000) ** 0.5))
    levels = given[::step, ::step].ravel()
    counts = np.bincount(levels, minlength=256).astype(np.float64)
    sums = np.bincount(levels, weights=target[::step, ::step].ravel(), minlength=256)
    counted = np.convolve(counts, _SMOOTHING, "same")
    known = counted > 1
    at = np.convolve(counts * _LEVELS, _SMOOTHING, "same")[known] / counted[known]
    to = np.convolve(sums, _SMOOTHING, "same")[known] / counted[known]
    levels_to = np.clip(np.rint(np.interp(_LEVELS, at, to)), 0, 255)
    return [int(level) for level in levels_to]


def _filter(given: Grey, target: Grey) -> tuple[NDArray[np.float64], float]:
    """The 5 x 5 linear filter and offset that make one picture most like the other.

    Least squares over a sample of the places with most structure; drawn to "as it is".
    """
    side = 2 * _REACH + 1
    weights = np.zeros(side * side + 1)
    weights[side * side // 2] = 1
    inner = given[_REACH:-_REACH, _REACH:-_REACH].astype(np.int16)
    slope = np.abs(inner - given[_REACH:-_REACH, : -2 * _REACH])
    slope += np.abs(inner - given[: -2 * _REACH, _REACH:-_REACH])
    step = max(1, int((slope.size / 400_000) ** 0.5))
    slope = slope[::step, ::step]
    places = np.flatnonzero(slope >= max(8.0, float(np.quantile(slope, 0.85))))
    if len(places) >= 12 * len(weights):
        if len(places) > _MOST_SAMPLES:
            places = places[np.linspace(0, len(places) - 1, _MOST_SAMPLES).astype(np.int64)]
        rows, columns = np.divmod(places, slope.shape[1])
        rows, columns = rows * step, columns * step
        seen = np.ones((len(places), len(weights)))
        for at in range(side * side):
            seen[:, at] = given[rows + at // side, columns + at % side]
        seen[:, :-1] -= 128
        wanted = target[rows + _REACH, columns + _REACH] - 128.0
        products = seen.T @ seen
        products += np.eye(len(weights)) * (1e-4 * np.trace(products) / side**2)
        weights += np.linalg.solve(products, seen.T @ (wanted - seen @ weights))
    offset = float(weights[-1] + 128 * (1 - weights[:-1].sum()))
    return weights[:-1].reshape(side, side), offset


def _shown_by(large: Image.Image, small: Image.Image) -> Box:
    """The part of the larger picture that the smaller one shows: all but a little at the edges.

    Registration by Lucas and Kanade (1981) with a shift and a scale for each axis, coarse to fine,
    over the pixels with most slope, those that differ most counting least.
    """
    box = np.array([0.0, 0.0, large.width, large.height])
    most = np.array([large.width, large.height, large.width, large.height]) * _MOST_CUT
    whole = box.copy()
    for longer in (96, 192, 384, 768):
        scale = min(1.0, longer / max(small.size))
        size = (max(8, round(small.width * scale)), max(8, round(small.height * scale)))
        target = np.asarray(small.resize(size, Image.Resampling.BOX), dtype=np.float32)
        for _ in range(_MOST_STEPS):
            left, top, right, bottom = box.tolist()
            moved = large.resize(size, Image.Resampling.BOX, box=(left, top, right, bottom))
            step = _step(np.asarray(moved, dtype=np.float32), target)
            if step is None:
                break
            x, wider, y, higher = step
            per_x, per_y = (right - left) / size[0], (bottom - top) / size[1]
            change = [
                (x - wider) * per_x,
                (y - higher) * per_y,
                (x + wider) * per_x,
                (y + higher) * per_y,
            ]
            low, high = (
                np.minimum(whole, whole - most * [0, 0, 1, 1]),
                np.maximum(whole, whole + most * [1, 1, 0, 0]),
            )
            box = np.clip(box + change, low, high)
            if max(abs(x) + abs(wider), abs(y) + abs(higher)) < 0.03:  # pixels
                break
        if scale == 1:
            break
    left, top, right, bottom = box.tolist()
    return left, top, right, bottom


def _step(moved: Floats, target: Floats) -> tuple[float, float, float, float] | None:
    """By how many pixels to shift and to widen along x, then y; None if nothing tells."""
    contrast = float((target.std() + 1) / (moved.std() + 1))
    differing = (target - target.mean()) - (moved - moved.mean()) * contrast
    along_x, along_y = np.zeros_like(moved), np.zeros_like(moved)
    along_x[:, 1:-1] = (moved[:, 2:] - moved[:, :-2]) * (contrast / 2)
    along_y[1:-1] = (moved[2:] - moved[:-2]) * (contrast / 2)
    slope = np.abs(along_x) + np.abs(along_y)
    chosen = slope > max(2.0, float(np.quantile(slope, 0.7)))
    if int(chosen.sum()) < 50:
        return None
    rows, columns = np.nonzero(chosen)
    x = columns / (moved.shape[1] - 1) * 2 - 1
    y = rows / (moved.shape[0] - 1) * 2 - 1
    differing, along_x, along_y = differing[chosen], along_x[chosen], along_y[chosen]
    usual = float(np.median(np.abs(differing))) * 2 + 4
    counts = 1 / (1 + (differing / usual) ** 2)
    slopes = np.stack([along_x, along_x * x, along_y, along_y * y])
    products = (slopes * counts) @ slopes.T
    products += np.eye(4) * (1e-5 * np.trace(products) / 4 + 0.01)
    found = np.clip(np.linalg.solve(products, (slopes * counts) @ differing), -2, 2)
    return float(found[0]), float(found[1]), float(found[2]), float(found[3])


def _loses_text(large: Image.Image, size: tuple[int, int], *, mostly: bool = False) -> bool:
    """Whether there is text, or what looks like it, in a picture that is lost at a smaller size.

    Text is strong structure on an even ground. What is lost is the variance within what becomes one
    pixel, as against the variance that stays. ``mostly``: most of what is lost must be text.
    """
    if large.width < _LEAST_ENLARGED * size[0]:
        return False
    grey = np.asarray(large, dtype=np.float32)
    kept = np.asarray(large.resize(size, Image.Resampling.BOX), dtype=np.float32)
    squares = Image.fromarray(grey * grey).resize(size, Image.Resampling.BOX)
    within = np.maximum(np.asarray(squares) - kept * kept, 0)
    lost, means = _cells(within, _PLACE), _cells(kept, _PLACE)
    stays = np.maximum(_cells(kept * kept, _PLACE) - means * means, 0)
    pixels = _cells((within > _LOST).astype(np.float32), _PLACE)
    is_lost = (pixels >= _LOST_PIXELS) & (lost > _LOST_SHARE * (lost + stays))
    scale = large.width / size[0], large.height / size[1]
    places = np.argwhere(is_lost)[:_MOST_PLACES].tolist()
    even = [_evenness(grey, row, column, scale) for row, column in places]
    lines = sum(share >= _EVEN_SHARE for share in even)
    words = sum(share >= _WORD_EVEN_SHARE for share in even)
    return (lines >= _LINES or words > mostly) and lines >= mostly * _MOSTLY * len(even)


def _has_small_text(large: Image.Image, small: Image.Image) -> bool:
    sizes = ((round(small.width / n), round(small.height / n)) for n in _TEXT_SCALES)
    return any(_loses_text(large, size, mostly=True) for size in sizes)


def _evenness(grey: Floats, row: int, column: int, scale: tuple[float, float]) -> float:
    """How much of a place of the larger picture is of one grey level, its ground."""
    wide, high = _PLACE * scale[0], _PLACE * scale[1]
    rows = slice(round(row * high), round((row + 1) * high))
    place = grey[rows, round(column * wide) : round((column + 1) * wide)]
    low, middle, top = np.quantile(place, (0.1, 0.5, 0.9))
    ground = top if top - middle < middle - low else low
    return float((np.abs(place - ground) <= _EVEN).mean())


def _cells(values: Floats, side: int = _CELL) -> Floats:
    height, width = (length // side * side for length in values.shape)
    cells = values[:height, :width].reshape(height // side, side, width // side, side)
    return np.asarray(cells.mean(axis=(1, 3)), dtype=np.float32)


def _joined(cells: Floats) -> Floats:
    """Means over 2 x 2 cells, one cell apart."""
    rows = cells[1:] + cells[:-1]
    return np.asarray((rows[:, 1:] + rows[:, :-1]) * np.float32(0.25), dtype=np.float32)


def _halved(values: Floats) -> Floats:
    height, width = (side // 2 * 2 for side in values.shape)
    rows = values[:height:2, :width] + values[1:height:2, :width]
    return np.asarray((rows[:, ::2] + rows[:, 1::2]) * np.float32(0.25), dtype=np.float32)


def _mean_around(cells: Floats, reach: int) -> Floats:
    side = 2 * reach + 1
    padded = np.pad(cells, reach, mode="edge").astype(np.float64)
    for _ in range(2):
        sums = np.vstack([np.zeros((1, padded.shape[1])), padded.cumsum(axis=0)])
        padded = ((sums[side:] - sums[:-side]) / side).T
    return padded.astype(np.float32)


def _greatest_around(values: Floats, reach: int) -> Floats:
    for _ in range(reach):
        rows = values.copy()
        np.maximum(rows[1:], values[:-1], out=rows[1:])
        np.maximum(rows[:-1], values[1:], out=rows[:-1])
        values = rows.copy()
        np.maximum(values[:, 1:], rows[:, :-1], out=values[:, 1:])
        np.maximum(values[:, :-1], rows[:, 1:], out=values[:, :-1])
    return values
