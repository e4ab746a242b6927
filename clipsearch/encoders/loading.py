"""Which runtime answers: torch on a GPU, else the compiled one if it has been made, else torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from clipsearch import errors
from clipsearch.config import Settings, resolve
from clipsearch.encoders.addresses import resolve_address
from clipsearch.encoders.downloads import announce
from clipsearch.encoders.protocol import Encoder
from clipsearch.encoders.registry import EMBEDDED, EMBEDDED_FOLDER
from clipsearch.errors import DeviceError, ModelError, SpaceMismatchError
from clipsearch.model_names import LOCAL_DIR
from clipsearch.processes import own_command, own_environment
from clipsearch.vectors import EmbeddingSpace

Notify = Callable[[str], None]
_CONVERSION_TIMEOUT_S = 1800


def load_encoder(
    address: str,
    *,
    settings: Settings | None = None,
    space: EmbeddingSpace | None = None,
    notify: Notify | None = None,
) -> Encoder:
    """Loads a model by its address (see docs/models.md) in the fastest runtime there is.

    With ``space`` the result is of exactly that space, else SpaceMismatchError. Models of folders
    are read from the copies of the library that ``settings`` names, where it has one. Other errors
    are ModelErrors of the kind of trouble. ``notify`` hears in one line when torch has to stand in.
    """
    settings = settings or resolve()
    address = resolve_address(address, settings=settings, notify=notify)
    if may_use_compiled(settings):
        wanted = space or _space_without_torch(address, settings)
        compiled = _load_compiled(address, wanted, settings) if wanted is not None else None
        if compiled is not None:
            return compiled
        if settings.runtime == "compiled":
            raise ModelError(
                reason=f"The compiled runtime of {address} has not been made. "
                f"Run: clipsearch models use {address}"
            )
        if space is not None and settings.runtime == "auto" and notify is not None:
            notify(
                f"Using torch, which takes seconds to start; make the fast runtime with: "
                f"clipsearch models use {address}"
            )
    from clipsearch.encoders.openclip import TorchEncoder, load_openclip

    loaded = load_openclip(address, settings=settings, space=space, notify=notify)
    encoder = TorchEncoder(loaded, settings)
    if space is not None and encoder.space != space:
        raise SpaceMismatchError(
            expected=f"other weights of {address}", found="another model", address=address
        )
    return encoder


def is_compiled(space: EmbeddingSpace, settings: Settings) -> bool:
    """True if the compiled runtime of a space has been made on this machine, and is undamaged."""
    from clipsearch.encoders.compiled import TOWERS, find_entry, is_sound, read_manifest

    folder = find_entry(settings, space)
    manifest = read_manifest(folder) if folder is not None else None
    if folder is None or manifest is None:
        return False
    return all(is_sound(folder, tower, manifest) for tower in TOWERS)


def may_use_compiled(settings: Settings) -> bool:
    """True if a model is loaded in the compiled runtime where that has been made."""
    if settings.runtime == "compiled" and settings.device == "cuda":
        raise DeviceError(reason="The compiled runtime is for CPUs: use --runtime torch for a GPU")
    if settings.runtime == "torch" or settings.device == "cuda":
        return False
    return settings.runtime == "compiled" or settings.device == "cpu" or not _has_nvidia_gpu()


def compile_encoder(
    address: str,
    *,
    settings: Settings | None = None,
    space: EmbeddingSpace | None = None,
    notify: Notify | None = None,
) -> bool:
    """Makes the compiled runtime's files unless they are there; True if they are there now.

    It is done by a process of its own (see ``openclip_export``), so this one imports no torch.
    ``space`` is that of the model, if it is known. Raises what loading it raises; False, and a line
    to ``notify``, if only the conversion failed: torch then does the work.
    """
    settings = settings or resolve()
    address = resolve_address(address, settings=settings, notify=notify)
    known = space or _space_without_torch(address, settings)
    if known is not None and is_compiled(known, settings):
        return True
    announce(address, settings, notify)
    if notify is not None:
        notify(f"Preparing the fast runtime of {address} (once, well under a minute for most)")
    source = address
    if address.startswith(LOCAL_DIR):
        from clipsearch.encoders.model_store import read_model

        source = f"{LOCAL_DIR}{read_model(address, settings, space).folder}"
    command = own_command("-m", "clipsearch.encoders.openclip_export", source)
    try:
        done = subprocess.run(
            [*command, str(settings.compiled_dir)],
            capture_output=True,
            text=True,
            timeout=_CONVERSION_TIMEOUT_S,
            env=own_environment(
                PYTHONWARNINGS="ignore", CLIPSEARCH_OFFLINE="1" if settings.offline else "0"
            ),
            check=True,
        )
        result = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        detail = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        if notify is not None:
            notify(f"The fast runtime could not be made ({detail[-1] if detail else error})")
        return False
    if "error" in result:
        failure = getattr(errors, result["error"])(**result["fields"])
        if type(failure) is not ModelError:
            raise failure
        if notify is not None:
            notify(str(failure))
        return False
    return True


def _has_nvidia_gpu() -> bool:
    """Whether importing torch to ask for CUDA is worth its seconds."""
    return Path("/dev/nvidia0").exists() or (
        sys.platform == "win32" and Path(r"C:\Windows\System32\nvcuda.dll").exists()
    )


def embedded_space() -> EmbeddingSpace:
    """The space of the embedded model of this release; no torch is imported for it."""
    from clipsearch.encoders.local_model import read_local_model

    return read_local_model(EMBEDDED_FOLDER, EMBEDDED).space()


def _space_without_torch(address: str, settings: Settings) -> EmbeddingSpace | None:
    """The space of an address, from its folder or from what has been compiled, if that says it."""
    if address == EMBEDDED:
        return embedded_space()
    if address.startswith(LOCAL_DIR):
        from clipsearch.encoders.model_store import read_model

        return read_model(address, settings).space()
    from clipsearch.encoders.compiled import find_address

    return find_address(settings, address)


def _load_compiled(address: str, space: EmbeddingSpace, settings: Settings) -> Encoder | None:
    from clipsearch.encoders.compiled import CompiledEncoder, DamagedEntryError, find_entry

    folder = find_entry(settings, space)
    if folder is None:
        return None
    try:
        encoder = CompiledEncoder(folder, settings)
    except DamagedEntryError:
        return None
    encoder.address = address  # a folder may have moved since
    return encoder
