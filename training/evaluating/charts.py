"""Plots as SVG text, which a page holds inline: bars, strips, lines, points and a grid of shades.

Colours and fonts are those of the page (its CSS classes ``m0`` to ``m5``), light or dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from training.evaluating.bootstrap import Interval

_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 12, 34
_COLOURS = 6


def bars(groups: Sequence[str], series: Sequence[Sequence[tuple[float, Interval]]]) -> str:
    """A bar for each group and series, in percent, with its interval as a whisker."""
    width, height = max(320, 60 + 46 * len(groups) * len(series)), 230
    plot = _Plot(width, height, (0, 100))
    slot = plot.width / len(groups)
    bar = slot * 0.8 / len(series)
    for group, name in enumerate(groups):
        plot.label(_LEFT + slot * (group + 0.5), name)
        for number, values in enumerate(series):
            value, (low, high) = values[group]
            x = _LEFT + slot * group + slot * 0.1 + bar * number
            top = plot.y(value)
            plot.add(
                f'<rect class="{_colour(number)}" x="{x + 1:.1f}" y="{top:.1f}" '
                f'width="{bar - 2:.1f}" height="{plot.y(0) - top:.1f}"/>'
            )
            middle = x + bar / 2
            plot.add(
                f'<path class="whisker" d="M{middle:.1f} {plot.y(low):.1f}V{plot.y(high):.1f}'
                f'M{middle - 4:.1f} {plot.y(low):.1f}h8M{middle - 4:.1f} {plot.y(high):.1f}h8"/>'
            )
            plot.text(middle, plot.y(high) - 5, f"{value:.1f}")
    return plot.svg("Recall with 95 % intervals")


def strips(
    rows: Sequence[tuple[str, Sequence[tuple[float, str]], float, float]],
) -> str:
    """For each row (name, [(value, what)], one, all): a dot each, a line at one, a bar at all."""
    values = [v for _, dots, one, every in rows for v in (one, every, *(d for d, _ in dots))]
    low, high = _round_range(values)
    width, height = 620, _TOP + _BOTTOM + 44 * len(rows)
    left = 24
    span = width - left - _RIGHT

    def x(value: float) -> float:
        return left + span * (value - low) / (high - low)

    parts = []
    for tick in _ticks(low, high):
        parts.append(f'<path class="grid" d="M{x(tick):.1f} {_TOP}V{height - _BOTTOM}"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{height - _BOTTOM + 16}">{tick:g} %</text>')
    for number, (name, dots, one, every) in enumerate(rows):
        y = _TOP + 44 * number + 30
        parts.append(f'<text class="start" x="{left}" y="{y - 14}">{escape(name)}</text>')
        for value, what in dots:
            parts.append(
                f'<circle class="{_colour(number)} soft" cx="{x(value):.1f}" cy="{y}" r="5">'
                f"<title>{escape(what)}: {value:.1f} %</title></circle>"
            )
        parts.append(
            f'<path class="mark" d="M{x(one):.1f} {y - 9}v18"><title>one template: {one:.1f} %'
            f'</title></path><path class="bold {_colour(number)}" d="M{x(every):.1f} {y - 11}v22">'
            f"<title>all together: {every:.1f} %</title></path>"
        )
    return _svg(width, height, parts, "Top-1 of each template")


def lines(
    series: Sequence[tuple[str, Sequence[tuple[float, float, float]], float]], last: str
) -> str:
    """For each (name, [(shots, value, spread)], level): a line over log shots, a dashed level."""
    values = [v for _, points, level in series for v in (level, *(p[1] for p in points))]
    low, high = _round_range(values)
    shots = sorted({point[0] for _, points, _ in series for point in points})
    plot = _Plot(560, 280, (low, high))
    first, end = math.log(shots[0]), math.log(shots[-1])

    def x(count: float) -> float:
        share = (math.log(count) - first) / (end - first) if end > first else 0.5
        return _LEFT + plot.width * (0.04 + 0.92 * share)

    for count in shots:
        plot.label(x(count), last if count == shots[-1] else f"{count:g}")
    for number, (name, points, level) in enumerate(series):
        colour = _colour(number)
        path = "L".join(f"{x(count):.1f} {plot.y(value):.1f}" for count, value, _ in points)
        plot.add(f'<path class="line {colour}" d="M{path}"/>')
        for count, value, spread in points:
            up, down = plot.y(min(value + spread, high)), plot.y(max(value - spread, low))
            plot.add(f'<path class="whisker" d="M{x(count):.1f} {up:.1f}V{down:.1f}"/>')
            plot.add(
                f'<circle class="{colour}" cx="{x(count):.1f}" cy="{plot.y(value):.1f}" r="4">'
                f"<title>{escape(name)}, {count:g}: {value:.1f} % ± {spread:.1f}</title></circle>"
            )
        y = plot.y(level)
        plot.add(f'<path class="line dashed {colour}" d="M{_LEFT} {y:.1f}h{plot.width:.1f}"/>')
        plot.add(f'<text class="start" x="{_LEFT + 6}" y="{y - 5:.1f}">zero-shot</text>')
    return plot.svg("Accuracy over labelled pictures a class")


def points(found: Sequence[tuple[str, float, float]], across: str) -> str:
    """For each (name, x above 0, y in percent) a point; x is logarithmic."""
    low, high = _round_range([y for _, _, y in found])
    xs = [math.log10(x) for _, x, _ in found]
    first, end = math.floor(min(xs)), math.ceil(max(xs))
    plot = _Plot(560, 260, (low, high))

    def place(value: float) -> float:
        return _LEFT + plot.width * (value - first) / max(end - first, 1)

    for power in range(first, end + 1):
        plot.label(place(power), f"{10**power:g}")
    plot.text(_LEFT + plot.width / 2, 258, across)
    for number, ((name, _, y), x) in enumerate(zip(found, xs, strict=True)):
        side = "end" if place(x) > _LEFT + plot.width / 2 else "start"
        shift = -10 if side == "end" else 10
        plot.add(
            f'<circle class="{_colour(number)}" cx="{place(x):.1f}" cy="{plot.y(y):.1f}" r="6"/>'
            f'<text class="{side}" x="{place(x) + shift:.1f}" y="{plot.y(y) + 4:.1f}">'
            f"{escape(name)}</text>"
        )
    return plot.svg("Quality and speed")


def legend(names: Sequence[str]) -> str:
    """The names in their colours, where there are several."""
    if len(names) < 2:
        return ""
    items = (
        f'<span><i class="{_colour(number)}"></i>{escape(name)}</span>'
        for number, name in enumerate(names)
    )
    return f'<p class="legend">{"".join(items)}</p>'


class _Plot:
    """A plot with a scale in percent at its left."""

    def __init__(self, width: int, height: int, span: tuple[float, float]) -> None:
        self._size = (width, height)
        self._low, self._high = span
        self.width = width - _LEFT - _RIGHT
        self._parts: list[str] = []
        for tick in _ticks(*span):
            y = self.y(tick)
            self.add(f'<path class="grid" d="M{_LEFT} {y:.1f}h{self.width}"/>')
            self.add(f'<text class="end" x="{_LEFT - 6}" y="{y + 4:.1f}">{tick:g} %</text>')

    def y(self, value: float) -> float:
        tall = self._size[1] - _TOP - _BOTTOM
        return _TOP + tall * (1 - (value - self._low) / (self._high - self._low))

    def add(self, part: str) -> None:
        self._parts.append(part)

    def text(self, x: float, y: float, words: str) -> None:
        self.add(f'<text x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>')

    def label(self, x: float, words: str) -> None:
        self.text(x, self._size[1] - _BOTTOM + 16, words)

    def svg(self, title: str) -> str:
        return _svg(*self._size, self._parts, title)


def _svg(width: int, height: int, parts: Sequence[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def _colour(number: int) -> str:
    return f"m{number % _COLOURS}"


def _round_range(values: Sequence[float]) -> tuple[float, float]:
    """Whole tens around all values, at least ten apart, within 0 to 100."""
    low = max(0.0, math.floor((min(values) - 1) / 10) * 10)
    high = min(100.0, math.ceil((max(values) + 1) / 10) * 10)
    return (low, high) if high > low else (low - 10, high)


def _ticks(low: float, high: float) -> list[float]:
    step = 5 if high - low <= 20 else 10 if high - low <= 60 else 20
    return [low + step * number for number in range(int((high - low) / step) + 1)]
