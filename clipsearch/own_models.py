"""Which of a library's models a name means, and the copies that the library keeps of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from clipsearch.config import Settings
from clipsearch.encoders import differences, model_parts
from clipsearch.encoders.local_model import CONFIG, read_local_model
from clipsearch.encoders.model_store import ModelStore, folder_of
from clipsearch.errors import ModelChangeError, ModelError, NotInLibraryError, StorageError
from clipsearch.library import Library, Problem, SpaceRecord
from clipsearch.model_names import LOCAL_DIR, MODELS, unmarked
from clipsearch.user_paths import expand_user
from clipsearch.vectors import EmbeddingSpace

Notify = Callable[[str], None]
_LEAST_DIGITS = 4  # of the id of a space
_others: set[tuple[str, str, int, int]] = set()  # weights that were found to be of another space


def known_model(library: Library, name: str, notify: Notify | None = None) -> SpaceRecord | None:
    """The space of the library that a model's name means, or None if it may mean another model.

    That is a name with a mark, or the beginning of a space's id. A folder means what lies in it
    now; where nothing does, the model that was taken from it, which ``notify`` is told.
    ModelChangeError where several were.
    """
    spaces, name = library.spaces(), _absolute(name)
    _, mark = unmarked(name)
    named = [one for one in spaces if mark and one.address == name] or [
        one for one in spaces if len(name) >= 2 * _LEAST_DIGITS and one.id.startswith(name)
    ]
    if named or not name.startswith(LOCAL_DIR) or (folder_of(name) / CONFIG).exists():
        return named[0] if len(named) == 1 else None
    taken = [one for one in spaces if one.origin == name]
    if not taken:
        return None
    found = find_space(library, name)
    if notify is not None:
        notify(f"There is no model in {folder_of(name)} any more: this is {found.address}")
    return found


def find_space(library: Library, name: str) -> SpaceRecord:
    """The space that an address, or the beginning of a space's id, names.

    NotInLibraryError if there is none, ModelChangeError if there are several.
    """
    spaces, address = library.spaces(), _absolute(name)
    found = (
        [one for one in spaces if one.address == address]
        or [one for one in spaces if one.origin == address]
        or [one for one in spaces if len(name) >= _LEAST_DIGITS and one.id.startswith(name)]
    )
    if not found:
        held = ", ".join(one.address for one in spaces) or "none yet"
        raise NotInLibraryError(
            what=f"A model '{name}'", path=library.path, advice=f"It has vectors of: {held}"
        )
    if len(found) > 1:
        said = ", ".join(f"{one.address} ({'in use' if one.active else 'kept'})" for one in found)
        raise ModelChangeError(reason=f"'{name}' names several: say which: {said}")
    return found[0]


def keep_model(library: Library, address: str, space: EmbeddingSpace) -> None:
    """Copies the model of a folder into the library, unless it has it; of others nothing is kept.

    Whoever calls it holds the library's lock. Raises what ``ModelStore.take`` raises, and what
    reading the model raises.
    """
    origin, _ = unmarked(address)
    store = ModelStore(library.path)
    if origin.startswith(LOCAL_DIR) and store.find(space) is None:
        store.take(read_local_model(folder_of(origin), address), space)
        library.describe_itself()


def keep_models(library: Library, notify: Notify | None = None) -> None:
    """Copies models that an earlier version took from folders, where they still lie there.

    Whoever calls it holds the library's lock. What cannot be copied stays as it was.
    """
    store = ModelStore(library.path)
    for one in library.spaces():
        if not one.origin.startswith(LOCAL_DIR) or store.find(one.space) is not None:
            continue
        try:
            model = read_local_model(folder_of(one.origin), one.address)
            found = model.weights.stat()
            looked_at = (one.id, str(model.weights), found.st_mtime_ns, found.st_size)
            if looked_at in _others:  # watch looks often, and reading weights takes a while
                continue
            if model.space() == one.space:
                store.take(model, one.space)
                library.describe_itself()
            else:
                _others.add(looked_at)
        except StorageError as error:
            if notify is not None:
                notify(f"The library could not keep a copy of its model: {error}")
        except (ModelError, OSError):  # gone, or written anew: told of when it is needed
            continue


def check_models(library: Library, *, repair: bool = False) -> list[Problem]:
    """The library's copies of models whose bytes are not as they were taken.

    ``repair`` takes such a model again from its folder, where that still holds it.
    """
    store, found = ModelStore(library.path), []
    for one in library.spaces():
        folder = store.find(one.space)
        if folder is None:
            continue
        with suppress(ModelError, OSError):
            if read_local_model(folder, one.address).space() == one.space:
                continue
        what = f"the library's copy of {one.address} is damaged"
        if repair:
            with library.writer():
                repaired = _taken_again(store, one)
        else:
            repaired = False
        if not repaired:
            what += (
                ". Where there is another: delete this one, and clipsearch models use "
                "local-dir:ITS_FOLDER"
            )
        found.append(Problem(what=what, where=f"{MODELS}/{folder.name}", repaired=repaired))
    return found


def _taken_again(store: ModelStore, one: SpaceRecord) -> bool:
    try:
        model = read_local_model(folder_of(one.origin), one.address)
        return model.space() == one.space and store.take(model, one.space, anew=True)
    except ModelError:
        return False


def told_change(
    library: Library, address: str, space: EmbeddingSpace, settings: Settings
) -> str | None:
    """What has changed where an address now names another model than the one that filled vectors.

    None where it has not, or never filled any.
    """
    origin, _ = unmarked(address)
    known = library.spaces()
    before = [one for one in known if one.origin == origin]
    if not before or any(one.id == space.id for one in known):
        return None
    latest = before[-1]
    parts = library.models.parts(latest.id)
    changed = ", ".join(differences(latest.space, space, parts, model_parts(address, settings)))
    return (
        f"The model {origin} is not the one any more that made the {latest.embedded:,} vectors of "
        f"{latest.address} in this library: its {changed} changed. Vectors of both are never mixed."
    )


def _absolute(name: str) -> str:
    """A name whose folder is absolute."""
    name = name.strip()
    if not name.startswith(LOCAL_DIR):
        return name
    return f"{LOCAL_DIR}{expand_user(name.removeprefix(LOCAL_DIR)).absolute()}"
