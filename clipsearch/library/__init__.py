"""The library: what is known of the photos, kept so that nothing committed is ever lost."""

from clipsearch.library.library import Library
from clipsearch.library.records import (
    Batch,
    CheckReport,
    Counts,
    FailureRecord,
    FileRecord,
    FileState,
    ForgetReport,
    ItemRecord,
    NewItem,
    Problem,
    RootRecord,
    SpaceRecord,
)
from clipsearch.library.writing import LibraryWriter

__all__ = [
    "Batch",
    "CheckReport",
    "Counts",
    "FailureRecord",
    "FileRecord",
    "FileState",
    "ForgetReport",
    "ItemRecord",
    "Library",
    "LibraryWriter",
    "NewItem",
    "Problem",
    "RootRecord",
    "SpaceRecord",
]
