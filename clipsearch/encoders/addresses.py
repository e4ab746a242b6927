"""From what a person types to the one name a model is known by; ``auto`` decides within seconds."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from clipsearch.config import Settings, resolve
from clipsearch.encoders.downloads import announce
from clipsearch.encoders.registry import (
    AUTO,
    DEFAULT,
    EMBEDDED,
    HF_HUB,
    OPENAI_MODELS,
    RECOMMENDED,
    is_cached,
)
from clipsearch.errors import UnknownModelError
from clipsearch.model_names import LOCAL_DIR, unmarked
from clipsearch.network import is_forbidden
from clipsearch.user_paths import expand_user

PROBE_TIMEOUT_S = 2.0
Notify = Callable[[str], None]


def resolve_address(
    address: str, *, settings: Settings | None = None, notify: Notify | None = None
) -> str:
    """The canonical form of an address; UnknownModelError with a suggestion if there is none.

    ``auto`` becomes the recommended model if its weights are here or can be downloaded, else
    ``embedded``, which ``notify`` is told; that takes at most about two seconds. Before the network
    is asked, that is told, too, and with ``settings.offline`` it is not asked. A local folder
    becomes an absolute path.
    """
    address = address.strip()
    if not address.startswith(LOCAL_DIR):
        address, _ = unmarked(address)  # which of its spaces is for the library to say
    if address == AUTO:
        return _automatic(settings or resolve(), notify)
    if address == EMBEDDED or address in {entry.address for entry in RECOMMENDED}:
        return address
    if address.startswith(LOCAL_DIR):
        folder = expand_user(address.removeprefix(LOCAL_DIR)).absolute()
        return f"{LOCAL_DIR}{folder}"
    if address.startswith(HF_HUB):
        if address.removeprefix(HF_HUB).count("/") != 1:
            raise UnknownModelError(
                address=address, suggestion="A hub address is hf-hub:organisation/name."
            )
        return address
    if address in OPENAI_MODELS:
        return f"{address}/openai"
    from clipsearch.encoders.openclip_names import check_address

    return check_address(address)


def _automatic(settings: Settings, notify: Notify | None) -> str:
    recommended = next(entry for entry in RECOMMENDED if entry.address == DEFAULT)
    if is_cached(recommended):
        return DEFAULT
    is_offline = is_forbidden(settings.offline)
    if not is_offline:
        announce(DEFAULT, settings, notify, doing="Looking for and downloading")
        if hub_is_reachable():
            return DEFAULT
    if notify is not None:
        why = "Offline" if is_offline else "No network"
        notify(
            f"{why}: using the small embedded model. Later, for better answers: "
            f"clipsearch index --model {DEFAULT}"
        )
    return EMBEDDED


def hub_is_reachable(timeout_s: float = PROBE_TIMEOUT_S) -> bool:
    """Whether the model hub answers within a time that a person will wait.

    The hub's own client retries for more than twenty seconds without a network. Name lookups
    cannot be given a time limit, so the question is asked in a thread that may be left behind.
    """
    if is_forbidden(False):
        return False
    # Only here: it brings http and ssl along, and every decoder process imports this package.
    import urllib.error
    import urllib.request

    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    answered = threading.Event()

    def ask() -> None:
        request = urllib.request.Request(endpoint, method="HEAD")  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=timeout_s):  # noqa: S310
                answered.set()
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (403, 407):  # not a proxy's refusal
                answered.set()
        except OSError:
            return

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(timeout_s)
    return answered.is_set()
