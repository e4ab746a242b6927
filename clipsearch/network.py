"""The network: only weights come over it, it can be forbidden, and nothing reports of our use.

Imported by ``clipsearch`` itself, so it holds for the command line, for programs that import the
package, and for every process that is started by either. It must stay quick to import.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

HOW_TO_FORBID = (
    "To stay off the network: --offline; for good: clipsearch models offline, "
    "or CLIPSEARCH_OFFLINE=1"
)
# What libraries that are used here, or that they use, read before they tell anyone of themselves.
_TELL_NO_ONE = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",  # transformers
    "DO_NOT_TRACK": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
}
_YES = frozenset(("1", "true", "yes", "on"))
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def tell_no_one() -> None:
    """Switches off what libraries report of their use, in this process and those it starts."""
    os.environ.update(_TELL_NO_ONE)
    hub = sys.modules.get("huggingface_hub.constants")
    if hub is not None:  # imported before us, it has read its variable already
        vars(hub)["HF_HUB_DISABLE_TELEMETRY"] = True


def is_forbidden(offline: bool, environment: Mapping[str, str] | None = None) -> bool:
    """True if a setting, or the variables of the Hugging Face hub, forbid the network."""
    environment = os.environ if environment is None else environment
    return offline or any(environment.get(name, "").lower() in _YES for name in _OFFLINE)
