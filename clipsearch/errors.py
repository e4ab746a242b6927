"""Every error clipsearch raises on purpose, with its message template and exit code.

ClipsearchError                       10   base; never raised itself
├── UsageError                         2   flags or arguments that do not fit together
├── SystemLimitError                  11   no memory, open file, process or thread to be had
├── OutputError                       12   what was to be printed could not be
├── FileAccessError                   13   a file or folder that the system does not let us use
├── LibraryError                      20
│   ├── LibraryNotFoundError          21   no library at that path
│   ├── LibraryLockedError            22   another process is writing
│   ├── LibraryCorruptError           23   the database is damaged
│   ├── LibraryVersionError           24   written by a newer clipsearch
│   ├── StorageError                  25   disk full, read-only, permission
│   ├── NotInLibraryError             26   a path or an item the library does not hold
│   └── FillRunningError              27   another process fills a new model's vectors
├── ModelError                        30
│   ├── UnknownModelError             31   no such address
│   ├── WeightsNotFoundError          32   the address is known, its file is not there
│   ├── WeightsCorruptError           33   truncated or unreadable weights
│   ├── WeightsFormatError            34   a format that can run code (pickle), refused
│   ├── ModelConfigError              35   config and weights do not fit together
│   ├── ModelDownloadError            36   the network or the hub did not deliver
│   ├── DeviceError                   37   the requested device or precision is not there
│   ├── SpaceMismatchError            38   vectors of two models would have been compared
│   └── ModelChangeError              39   a change of models that cannot be made
├── ImageError                        40
│   ├── ImageUnreadableError          41   not a picture, damaged, or truncated
│   ├── ImageTooLargeError            42   over the pixel limit
│   ├── ImageEmptyError               43   a file of zero bytes
│   ├── ImageNotFoundError            44   no such file
│   └── ImagePackageError             45   a format whose reader is not installed
├── QueryError                        50   nothing to search for, or not understood
│   └── ConceptError                  51   a learned name that cannot be used as it is
├── VectorError                       55   NaN, zero rows, wrong dimension, duplicate ids
├── DependencyError                   60   a package is missing or two of them clash
├── TrainingError                     70
│   ├── CaptionFileError              71   the caption file cannot be used
│   ├── CheckpointError               72   the run folder cannot be resumed
│   └── DatasetError                  75   pictures to measure a model on cannot be used
├── ServerError                       80
│   ├── PortInUseError                81
│   └── TokenRequiredError            82   listening beyond 127.0.0.1 needs a token
└── TaggingError                      90   tags that cannot be given
    ├── VocabularyError               91   a word list or templates, by file and line
    └── SidecarError                  92   a sidecar that is not ours to change

The message says what happened, to which file, against which limit, and what to do next.
Only ``clipsearch.cli`` prints them and turns them into exit codes.
"""

from __future__ import annotations

from typing import Any, ClassVar

DONE = 0
CRASHED = 1
USAGE = 2
SOME_FILES_SKIPPED = 100
INTERRUPTED = 130


class ClipsearchError(Exception):
    """Base of the tree; ``fields`` fill the class's ``template``."""

    exit_code: ClassVar[int] = 10
    template: ClassVar[str] = "{reason}"

    def __init__(self, **fields: Any) -> None:
        self.fields = fields
        super().__init__(self.template.format(**fields))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.fields)


def _rebuild(kind: type[ClipsearchError], fields: dict[str, Any]) -> ClipsearchError:
    return kind(**fields)


class UsageError(ClipsearchError):
    exit_code = USAGE


class SystemLimitError(ClipsearchError):
    exit_code = 11
    template = "{what}. {advice}."


class OutputError(ClipsearchError):
    exit_code = 12
    template = (
        "The answer could not be written to stdout: {reason}. Free some space, or write elsewhere, "
        "and run this again."
    )


class FileAccessError(ClipsearchError):
    exit_code = 13
    template = "{path} cannot be used: {reason}. {advice}."


class LibraryError(ClipsearchError):
    exit_code = 20


class LibraryNotFoundError(LibraryError):
    exit_code = 21
    template = (
        "There is no library at {path}. Make one with: clipsearch index FOLDER --library {path}"
    )


class LibraryLockedError(LibraryError):
    exit_code = 22
    template = (
        "The library {path} is being written by another process ({holder}). "
        "Wait for it to finish, or stop it; searching works meanwhile."
    )


class LibraryCorruptError(LibraryError):
    exit_code = 23
    template = "The library {path} is damaged: {reason}. Run: clipsearch check --library {path}"


class LibraryVersionError(LibraryError):
    exit_code = 24
    template = (
        "The library {path} has schema version {found}; this clipsearch reads up to {known}. "
        "Upgrade clipsearch to open it."
    )


class StorageError(LibraryError):
    exit_code = 25
    template = "Could not write {path}: {reason}. Nothing that was committed is lost; {advice}."


class NotInLibraryError(LibraryError):
    exit_code = 26
    template = "{what} is not in the library {path}. {advice}"


class FillRunningError(LibraryError):
    exit_code = 27
    template = (
        "Another process ({holder}) is changing the model of {path} already. See how far it is: "
        "clipsearch models; withdraw it: clipsearch models back"
    )


class ModelError(ClipsearchError):
    exit_code = 30


class UnknownModelError(ModelError):
    exit_code = 31
    template = "Unknown model '{address}'. {suggestion} List what can be used: clipsearch models"


class WeightsNotFoundError(ModelError):
    exit_code = 32
    template = "No weights for '{address}' at {path}. {advice}"


class WeightsCorruptError(ModelError):
    exit_code = 33
    template = "The weights file {path} is damaged or incomplete: {reason}. {advice}"


class WeightsFormatError(ModelError):
    exit_code = 34
    template = (
        "{path} would have to be unpickled, which can run any code in it, so it is refused: "
        "{reason}. Save the weights as safetensors."
    )


class ModelConfigError(ModelError):
    exit_code = 35
    template = "The model '{address}' does not fit its configuration {path}: {reason}. {advice}"


class ModelDownloadError(ModelError):
    exit_code = 36
    template = (
        "The weights of '{address}' are not on this machine and could not be downloaded: {reason}. "
        "{advice}."
    )


class DeviceError(ModelError):
    exit_code = 37


class SpaceMismatchError(ModelError):
    exit_code = 38
    template = (
        "The library's vectors were made by {expected}, this model is {found}; they cannot be "
        "compared. Run: clipsearch models use {address}"
    )


class ModelChangeError(ModelError):
    exit_code = 39


class ImageError(ClipsearchError):
    exit_code = 40


class ImageUnreadableError(ImageError):
    exit_code = 41
    template = "{path} cannot be read as a picture: {reason}"


class ImageTooLargeError(ImageError):
    exit_code = 42
    template = (
        "{path} has {pixels:,} pixels, over the limit of {max_pixels:,}. "
        "If you trust it, raise the limit: --max-pixels {pixels}"
    )


class ImageEmptyError(ImageError):
    exit_code = 43
    template = "{path} is empty (0 bytes)"


class ImageNotFoundError(ImageError):
    exit_code = 44
    template = "There is no file {path}"


class ImagePackageError(ImageError):
    exit_code = 45
    template = (
        "{path} cannot be read as a picture: it needs a package that is not installed, "
        "pip install {package} ({kind})"
    )


class QueryError(ClipsearchError):
    exit_code = 50


class ConceptError(QueryError):
    exit_code = 51


class VectorError(ClipsearchError):
    exit_code = 55


class DependencyError(ClipsearchError):
    exit_code = 60


class TrainingError(ClipsearchError):
    exit_code = 70


class CaptionFileError(TrainingError):
    exit_code = 71
    template = "The caption file {path} cannot be used: {reason}. {advice}"


class CheckpointError(TrainingError):
    exit_code = 72
    template = "The run in {path} cannot be resumed: {reason}. {advice}"


class DatasetError(TrainingError):
    exit_code = 75
    template = "{name} cannot be measured on: {reason}. {advice}"


class ServerError(ClipsearchError):
    exit_code = 80


class PortInUseError(ServerError):
    exit_code = 81
    template = "Port {port} on {host} is already in use. Choose another: --port {suggestion}"


class TokenRequiredError(ServerError):
    exit_code = 82
    template = (
        "Listening on {host} shows your photos to the network, so a token is needed: "
        "--token SECRET, or CLIPSEARCH_TOKEN"
    )


class TaggingError(ClipsearchError):
    exit_code = 90


class VocabularyError(TaggingError):
    exit_code = 91
    template = "{place}: {reason}. {advice}"


class SidecarError(TaggingError):
    exit_code = 92
    template = "The sidecar {path} was left as it is: {reason}. {advice}"
