"""What a photo says of itself, as people read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clipsearch.library import camera_name


def camera(facts: Mapping[str, Any]) -> str | None:
    """Its make and model in one."""
    return camera_name(_text(facts, "make"), _text(facts, "model"))


def _text(facts: Mapping[str, Any], name: str) -> str | None:
    value = facts.get(name)
    return value if isinstance(value, str) else None


def _number(facts: Mapping[str, Any], name: str) -> float | None:
    value = facts.get(name)
    return float(value) if isinstance(value, (int, float)) else None


def exposure(facts: Mapping[str, Any]) -> str | None:
    """``50 mm, f/1.8, 1/125 s, ISO 400`` and the lens, as far as they are known."""
    parts = []
    if (focal := _number(facts, "focal_length_mm")) is not None:
        parts.append(f"{focal:g} mm")
    if (aperture := _number(facts, "f_number")) is not None:
        parts.append(f"f/{aperture:g}")
    seconds = _number(facts, "exposure_s")
    if seconds is not None and seconds > 0:
        parts.append(f"1/{1 / seconds:.0f} s" if seconds < 0.5 else f"{seconds:g} s")
    if (iso := _number(facts, "iso")) is not None:
        parts.append(f"ISO {iso:.0f}")
    if (lens := _text(facts, "lens")) is not None:
        parts.append(lens)
    return ", ".join(parts) or None


def place(facts: Mapping[str, Any]) -> str | None:
    """The place's name and its coordinates, as far as they are known."""
    name = _text(facts, "place")
    latitude, longitude = _number(facts, "latitude"), _number(facts, "longitude")
    if latitude is None or longitude is None:
        return name
    coordinates = f"{latitude:.4f}, {longitude:.4f}"
    return f"{name} ({coordinates})" if name else coordinates
