"""What has changed between two models of one address: their weights, pixels, words, or shape."""

from __future__ import annotations

from collections.abc import Mapping

from clipsearch.config import Settings
from clipsearch.model_names import LOCAL_DIR
from clipsearch.vectors import EmbeddingSpace


def model_parts(
    address: str, settings: Settings, space: EmbeddingSpace | None = None
) -> dict[str, str]:
    """Checksums of a model folder's parts by name; of other addresses, whose files stay, nothing.

    Raises what ``read_model`` raises.
    """
    if not address.startswith(LOCAL_DIR):
        return {}
    from clipsearch.encoders.model_store import read_model  # slow: a search needs it not

    return read_model(address, settings, space).parts()


def differences(
    before: EmbeddingSpace,
    now: EmbeddingSpace,
    parts_before: Mapping[str, str],
    parts_now: Mapping[str, str],
) -> list[str]:
    """Names what differs, for people; empty if the vectors of both can be compared."""
    found = []
    if before.weights_sha256 != now.weights_sha256:
        found.append("weights")
    if before.preprocess != now.preprocess:
        found.append("preprocessing")
    if before.model != now.model:
        names = [name for name, value in parts_now.items() if parts_before.get(name, "") != value]
        known = bool(parts_before and names)
        found += names if known else ["configuration (architecture or tokenizer)"]
    elif before.dim != now.dim:
        found.append("dimension")
    return found
