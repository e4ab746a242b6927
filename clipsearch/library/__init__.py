"""The library: what is known of the photos, kept so that nothing committed is ever lost."""

from clipsearch.library.albums import LINKS, PLAYLIST, Album, AlbumExport
from clipsearch.library.carrying import CARRIED, KEPT
from clipsearch.library.concepts import Concept, ConceptPhoto, Concepts
from clipsearch.library.descriptions import described
from clipsearch.library.folders import LIBRARY_CACHES, is_library, mark_as_cache
from clipsearch.library.library import Library
from clipsearch.library.opinions import Answered
from clipsearch.library.records import (
    MOMENT,
    PICTURE,
    VIDEO,
    Batch,
    Carried,
    CheckReport,
    Counts,
    Description,
    FailureRecord,
    FileRecord,
    FileState,
    ForgetReport,
    ItemRecord,
    NewItem,
    Problem,
    RootRecord,
    SidecarState,
    SpaceRecord,
    Statistics,
    Words,
)
from clipsearch.library.said import words_said
from clipsearch.library.statistics import camera_name, failure_kind
from clipsearch.library.writing import LibraryWriter

__all__ = [
    "CARRIED",
    "KEPT",
    "LIBRARY_CACHES",
    "LINKS",
    "MOMENT",
    "PICTURE",
    "PLAYLIST",
    "VIDEO",
    "Album",
    "AlbumExport",
    "Answered",
    "Batch",
    "Carried",
    "CheckReport",
    "Concept",
    "ConceptPhoto",
    "Concepts",
    "Counts",
    "Description",
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
    "SidecarState",
    "SpaceRecord",
    "Statistics",
    "Words",
    "camera_name",
    "described",
    "failure_kind",
    "is_library",
    "mark_as_cache",
    "words_said",
]
