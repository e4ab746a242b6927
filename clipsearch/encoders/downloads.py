"""Pretrained weights that are not here: what, how large, where from, and whether it is allowed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clipsearch.command import say
from clipsearch.config import Settings
from clipsearch.encoders.registry import EMBEDDED, HF_HUB, RECOMMENDED, cached_file
from clipsearch.errors import ModelDownloadError
from clipsearch.model_names import LOCAL_DIR
from clipsearch.network import HOW_TO_FORBID, is_forbidden

HUB = "the Hugging Face hub"
_WITHOUT = "or use --model embedded, which needs no network"
Notify = Callable[[str], None]

_told: set[str] = set()
_switching = threading.RLock()


@dataclass(frozen=True)
class Download:
    """Weights that would have to be downloaded. ``megabytes`` is None where nobody here knows."""

    address: str
    megabytes: int | None
    into: Path

    def line(self, doing: str = "Downloading") -> str:
        """What is said before the first byte."""
        size = "of a size that only the hub knows"
        if self.megabytes is not None:
            size = f"about {self.megabytes:,} MB"
        return (
            f"{doing} the weights of {self.address} from {HUB}: {size}, into {self.into}. "
            f"{HOW_TO_FORBID}"
        )


def download_of(address: str) -> Download | None:
    """What an address needs to be downloaded, asking nobody; None where its weights are here."""
    if address == EMBEDDED or address.startswith(LOCAL_DIR):
        return None
    from huggingface_hub.constants import HF_HUB_CACHE

    into = Path(HF_HUB_CACHE)
    entry = next((entry for entry in RECOMMENDED if entry.address == address), None)
    if entry is not None and entry.hub is not None:
        here, megabytes = cached_file(entry.hub), entry.megabytes
    elif address.startswith(HF_HUB):
        here, megabytes = cached_file(address.removeprefix(HF_HUB)), None
    else:
        from clipsearch.encoders.openclip_names import megabytes_of, weights_here

        here = weights_here(address)
        megabytes = None if here else megabytes_of(address)
    return None if here else Download(address, megabytes, into)


def announce(
    address: str, settings: Settings, notify: Notify | None, *, doing: str = "Downloading"
) -> None:
    """Says once what is about to be downloaded, on stderr where there is no ``notify``.

    ModelDownloadError if the network is forbidden; nothing where the weights are here.
    """
    download = download_of(address)
    if download is None:
        return
    if is_forbidden(settings.offline):
        raise forbidden(address)
    if address not in _told:
        _told.add(address)
        (notify or say)(download.line(doing))


def forbidden(address: str) -> ModelDownloadError:
    """The error of what would need the network where that is not allowed."""
    return ModelDownloadError(
        address=address,
        reason="the network is forbidden (--offline, CLIPSEARCH_OFFLINE, HF_HUB_OFFLINE, or "
        "clipsearch models offline)",
        advice=f"Allow it with --no-offline or clipsearch models online, {_WITHOUT}",
    )


def failed(address: str, reason: str) -> ModelDownloadError:
    """The error of a network that did not deliver."""
    return ModelDownloadError(
        address=address, reason=reason, advice=f"Connect and run again, {_WITHOUT}"
    )


@contextmanager
def hub_offline(is_offline: bool = True) -> Iterator[None]:
    """Has the hub's client, and what asks through it, use what is here, or not; one at a time."""
    import huggingface_hub.constants as hub

    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    with _switching:
        was_offline, before = hub.HF_HUB_OFFLINE, {name: os.environ.get(name) for name in names}
        hub.HF_HUB_OFFLINE = is_offline
        os.environ.update(dict.fromkeys(names, "1" if is_offline else "0"))
        try:
            yield
        finally:
            hub.HF_HUB_OFFLINE = was_offline
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
