"""Encoders: pictures and texts to unit vectors, by torch or by a compiled runtime without it."""

from __future__ import annotations

from clipsearch.encoders.addresses import resolve_address
from clipsearch.encoders.identity import differences, model_parts
from clipsearch.encoders.loading import (
    compile_encoder,
    embedded_space,
    is_compiled,
    load_encoder,
    may_use_compiled,
)
from clipsearch.encoders.protocol import Encoder
from clipsearch.encoders.registry import ModelEntry, known_models
from clipsearch.encoders.unread import counted_unread, told_unread

__all__ = [
    "Encoder",
    "ModelEntry",
    "compile_encoder",
    "counted_unread",
    "differences",
    "embedded_space",
    "is_compiled",
    "known_models",
    "load_encoder",
    "may_use_compiled",
    "model_parts",
    "resolve_address",
    "told_unread",
]
