"""Line charts as PNG, drawn with Pillow: three plots do not pay for matplotlib in every install."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

_WIDTH, _HEIGHT = 1280, 720  # twice what is shown, so that it is sharp on dense screens
_LEFT, _RIGHT, _TOP, _BOTTOM = 130, 40, 90, 100
_INK, _FAINT, _GRID = "#1f2933", "#7b8794", "#e4e7eb"
COLOURS = ("#2563eb", "#d97706", "#059669", "#9333ea")
_FONT_SIZE = 24


@dataclass(frozen=True)
class Line:
    """A named series; ``noisy`` ones are drawn faint, with their running mean over them."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    noisy: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Mark:
    """A dashed line across: up at an x, or along at a y."""

    name: str
    x: float | None = None
    y: float | None = None


def line_chart(title: str, x_name: str, lines: Sequence[Line], marks: Sequence[Mark] = ()) -> bytes:
    """A chart of ``lines`` over a shared x, as a PNG's bytes. What is not finite is left out."""
    points = [
        [(x, y) for x, y in zip(line.xs, line.ys, strict=True) if math.isfinite(y)]
        for line in lines
    ]
    xs = [x for each in points for x, _ in each] or [0.0]
    ys = [y for each in points for _, y in each] or [0.0]
    ys += [mark.y for mark in marks if mark.y is not None]
    chart = _Chart(_ticks(min(xs), max(xs)), _ticks(min(ys), max(ys)), (min(xs), max(xs)))
    chart.frame(title, x_name)
    for mark in marks:
        chart.mark(mark)
    for place, (line, each) in enumerate(zip(lines, points, strict=True)):
        chart.line(line, each, COLOURS[place % len(COLOURS)])
    chart.legend([line.name for line in lines])
    return chart.png()


class _Chart:
    def __init__(
        self, x_ticks: list[float], y_ticks: list[float], x_span: tuple[float, float]
    ) -> None:
        self._x_ticks = [tick for tick in x_ticks if x_span[0] <= tick <= x_span[1]]
        self._y_ticks = y_ticks
        self._x_span = x_span if x_span[1] > x_span[0] else (x_span[0] - 0.5, x_span[0] + 0.5)
        self._y_span = (y_ticks[0], y_ticks[-1])
        self._image = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
        self._draw = ImageDraw.Draw(self._image)
        self._font = ImageFont.load_default(_FONT_SIZE)
        self._large = ImageFont.load_default(_FONT_SIZE + 8)

    def _x(self, value: float) -> float:
        low, high = self._x_span
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def _y(self, value: float) -> float:
        low, high = self._y_span
        return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def frame(self, title: str, x_name: str) -> None:
        draw, bottom = self._draw, _HEIGHT - _BOTTOM
        draw.text((_LEFT, 24), title, _INK, self._large)
        for tick in self._y_ticks:
            y = self._y(tick)
            draw.line((_LEFT, y, _WIDTH - _RIGHT, y), _GRID, 2)
            draw.text((_LEFT - 14, y), f"{tick:g}", _FAINT, self._font, anchor="rm")
        for tick in self._x_ticks:
            draw.line((self._x(tick), bottom, self._x(tick), bottom + 8), _FAINT, 2)
            draw.text((self._x(tick), bottom + 14), f"{tick:g}", _FAINT, self._font, anchor="ma")
        draw.text((_WIDTH - _RIGHT, _HEIGHT - 16), x_name, _FAINT, self._font, anchor="rd")

    def mark(self, mark: Mark) -> None:
        if mark.x is not None:
            x = self._x(mark.x)
            for top in range(_TOP, _HEIGHT - _BOTTOM, 16):
                self._draw.line((x, top, x, top + 8), _FAINT, 2)
            anchor = "rs" if x > _WIDTH / 2 else "ls"
            self._draw.text((x, _TOP - 6), mark.name, _FAINT, self._font, anchor=anchor)
        if mark.y is not None:
            y = self._y(mark.y)
            for left in range(_LEFT, _WIDTH - _RIGHT, 16):
                self._draw.line((left, y, left + 8, y), _FAINT, 2)
            self._draw.text((_LEFT + 8, y + 6), mark.name, _FAINT, self._font, anchor="la")

    def line(self, line: Line, points: list[tuple[float, float]], colour: str) -> None:
        if line.noisy:
            self._path(points, _lighter(colour), 2)
            points = _running_mean(points)
        self._path(points, colour, 5)
        if line.dots or len(points) == 1:
            for x, y in points:
                at = (self._x(x), self._y(y))
                self._draw.ellipse((at[0] - 7, at[1] - 7, at[0] + 7, at[1] + 7), colour)

    def _path(self, points: list[tuple[float, float]], colour: str, width: int) -> None:
        if len(points) > 1:
            placed = [(self._x(x), self._y(y)) for x, y in points]
            self._draw.line(placed, colour, width, joint="curve")

    def legend(self, names: list[str]) -> None:
        x = float(_LEFT)
        for name, colour in zip(names, COLOURS, strict=False):
            self._draw.line((x, _HEIGHT - 28, x + 36, _HEIGHT - 28), colour, 6)
            self._draw.text((x + 46, _HEIGHT - 28), name, _INK, self._font, anchor="lm")
            x += 46 + self._draw.textlength(name, self._font) + 36

    def png(self) -> bytes:
        buffer = io.BytesIO()
        self._image.save(buffer, "PNG", optimize=True)
        return buffer.getvalue()


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers that hold ``low`` and ``high``: 1, 2 or 5 times a power of ten apart."""
    if high - low <= 1e-9 * max(1.0, abs(low)):
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _running_mean(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Exponential, over about a twentieth of the points."""
    kept = 1 - 1 / max(1.0, len(points) / 20)
    mean, weight, smooth = 0.0, 0.0, []
    for x, y in points:
        mean, weight = kept * mean + (1 - kept) * y, kept * weight + (1 - kept)
        smooth.append((x, mean / weight))
    return smooth


def _lighter(colour: str) -> str:
    parts = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "#" + "".join(f"{(part + 2 * 255) // 3:02x}" for part in parts)
