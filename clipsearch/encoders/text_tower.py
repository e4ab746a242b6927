"""Words to vectors in numpy: CLIP's causal text transformer (Radford et al. 2021, section 2.4).

A question is a handful of tokens, and a runtime for neural networks takes longer to load than to
answer many of them; here a file is mapped and a few matrices are multiplied. Each token looks only
back, so what stands behind the end token has no part in the answer and is not computed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FILE = "text.safetensors"
_DTYPES: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}
_BLOCK = 256  # tokens at once; more of them fall out of a core's cache

# Numbers of tokens side by side: (width, texts, tokens of a text). Weights then stand on the left
# of each product, where BLAS needs not turn them.
Columns = NDArray[np.float32]
Weights = NDArray[np.float32]
Activation = Callable[[Columns], Columns]


def _gelu(x: Columns) -> Columns:
    """x times the normal distribution's integral up to x (Hendrycks and Gimpel 2016).

    The error function is that of Abramowitz and Stegun, 7.1.26: 1.5e-7 from the exact one.
    """
    away = np.abs(x)
    t: Columns = np.reciprocal(1 + np.float32(0.3275911 * math.sqrt(0.5)) * away)
    tail: Columns = t * np.float32(1.061405429)
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail += np.float32(coefficient)
        tail *= t
    tail *= np.exp(away * away * np.float32(-0.5))
    tail *= away
    tail *= np.float32(-0.5)
    tail += np.maximum(x, 0)
    return tail


def _quick_gelu(x: Columns) -> Columns:
    """x times the sigmoid of 1.702 x, as OpenAI's models have it."""
    with np.errstate(over="ignore"):  # x / infinity is the 0 it should be
        return np.asarray(x / (1 + np.exp(x * np.float32(-1.702))), np.float32)


ACTIVATIONS: dict[str, Activation] = {"gelu": _gelu, "quick_gelu": _quick_gelu}


def _normal(x: Columns, epsilon: float) -> Columns:
    """(width, n) -> each column with mean 0 and variance 1 (Ba et al. 2016).

    Its learned scale and shift are in the weights that follow. Means are products with ``even``,
    because numpy's own take longer to begin than a few columns to add up.
    """
    even = np.full(len(x), 1 / len(x), np.float32)
    away: Columns = x - even @ x
    away /= np.sqrt(even @ (away * away) + np.float32(epsilon))
    return away


@dataclass(frozen=True)
class _Linear:
    weight: Weights  # (out, in)
    bias: Weights  # (out, 1)

    def __call__(self, x: Columns) -> Columns:
        """(in, n) -> (out, n)."""
        made: Columns = self.weight @ x
        made += self.bias
        return made

    def after(self, scale: Weights, shift: Weights) -> _Linear:
        """The same of what is first scaled and shifted, both (in,)."""
        bias = self.bias + (self.weight @ shift).reshape(-1, 1)
        return _Linear(self.weight * scale, bias)


@dataclass(frozen=True)
class _Layer:
    """A residual attention block (Vaswani et al. 2017), normalised first."""

    heads: int
    epsilon: float
    asking: _Linear  # makes queries, over the root of their length, then keys and values
    attended: _Linear
    widening: _Linear
    activation: Activation
    narrowing: _Linear

    def __call__(self, x: Columns, mask: Weights | None) -> Columns:
        """(width, texts, tokens) -> the same; without a mask of the last token alone."""
        width, texts, tokens = x.shape
        made = self.asking(_normal(x.reshape(width, -1), self.epsilon))
        split = made.reshape(3, self.heads, width // self.heads, texts, tokens)
        queries, keys, values = split.transpose(0, 1, 3, 2, 4)  # (heads, texts, length, tokens)
        if mask is None:
            x, queries = x[:, :, -1:], queries[..., -1:]
        # What is looked at lies along the last axis but one, so that columns are of one token each.
        scores = keys.swapaxes(-1, -2) @ queries
        if mask is not None:
            scores += mask
        scores -= np.maximum.reduce(scores, axis=-2, keepdims=True)
        np.exp(scores, out=scores)
        scores /= np.add.reduce(scores, axis=-2, keepdims=True)
        found = (values @ scores).transpose(0, 2, 1, 3).reshape(width, -1)
        middle: Columns = x.reshape(width, -1) + self.attended(found)
        wide = self.activation(self.widening(_normal(middle, self.epsilon)))
        middle += self.narrowing(wide)
        return middle.reshape(width, texts, -1)


class TextTower:
    """A text transformer read from the file that ``openclip_text`` wrote."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, ValueError or KeyError where the file is not one of these."""
        read, facts = _map_file(path)
        heads, self._epsilon = int(facts["heads"]), float(facts["epsilon"])
        activation = ACTIVATIONS[facts["activation"]]

        def exact(name: str) -> Weights:
            return np.ascontiguousarray(read[name], np.float32)

        def linear(weight: str, bias: str) -> _Linear:
            return _Linear(exact(weight), exact(bias).reshape(-1, 1))

        def layer(name: str) -> _Layer:
            inward = linear(f"{name}.attn.in_proj_weight", f"{name}.attn.in_proj_bias")
            asking = inward.after(exact(f"{name}.ln_1.weight"), exact(f"{name}.ln_1.bias"))
            width = asking.weight.shape[1]
            for part in (asking.weight, asking.bias):
                part[:width] *= np.float32((width // heads) ** -0.5)
            widening = linear(f"{name}.mlp.c_fc.weight", f"{name}.mlp.c_fc.bias")
            return _Layer(
                heads,
                self._epsilon,
                asking,
                linear(f"{name}.attn.out_proj.weight", f"{name}.attn.out_proj.bias"),
                widening.after(exact(f"{name}.ln_2.weight"), exact(f"{name}.ln_2.bias")),
                activation,
                linear(f"{name}.mlp.c_proj.weight", f"{name}.mlp.c_proj.bias"),
            )

        self._embedding = read["token_embedding.weight"]  # (tokens, width), stays in the file
        self._positions = exact("positional_embedding")  # (context length, width)
        layers = range(int(facts["layers"]))
        self._layers = [layer(f"transformer.resblocks.{number}") for number in layers]
        projection = np.ascontiguousarray(exact("text_projection").T)  # (dim, width)
        unshifted = _Linear(projection, np.zeros((len(projection), 1), np.float32))
        self._projection = unshifted.after(exact("ln_final.weight"), exact("ln_final.bias"))

    def __call__(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n, context length) ids with end tokens -> (n, dim), not of unit length."""
        ends = tokens.argmax(axis=1)  # no id is higher; of several the first counts
        vectors = np.empty((len(tokens), len(self._projection.bias)), np.float32)
        for end in np.unique(ends):
            rows = np.flatnonzero(ends == end)
            count = max(1, _BLOCK // int(end + 1))
            for start in range(0, len(rows), count):
                some = rows[start : start + count]
                vectors[some] = self._encode(tokens[some, : end + 1])
        return vectors

    def _encode(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n, t) ids that end with their end tokens -> (n, dim)."""
        length = ids.shape[1]
        embedded = self._embedding[ids].astype(np.float32) + self._positions[:length]
        x: Columns = np.ascontiguousarray(embedded.transpose(2, 0, 1))
        # Rows are what is looked at: those behind the column's own token are hidden.
        mask = np.tril(np.full((length, length), -np.inf, np.float32), -1)
        for layer in self._layers[:-1]:
            x = layer(x, mask)
        x = self._layers[-1](x, None)
        return self._projection(_normal(x.reshape(len(x), -1), self._epsilon)).T


def _map_file(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The tensors of a safetensors file, unread until they are used, and its metadata."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    facts = header.pop("__metadata__")
    content = np.memmap(path, np.uint8, "r", 8 + length)
    tensors = {}
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        tensors[name] = content[start:stop].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors, facts
