"""What this process and its decoders say to each other: JSON records with bytes attached.

Not pickle: a decoder has read hostile files, so what it says is data and nothing else.
"""

from __future__ import annotations

import json
import struct
from typing import IO, Any

_LENGTHS = struct.Struct("<II")  # of the record and of the attachment, in bytes
_MAX_RECORD_BYTES = 16 << 20


class BrokenMessageError(Exception):
    """The other side ended in the middle of a message, or said what is none."""


def send(stream: IO[bytes], record: dict[str, Any], attachment: bytes = b"") -> None:
    """Writes one message and flushes it."""
    body = json.dumps(record).encode("ascii")
    stream.write(_LENGTHS.pack(len(body), len(attachment)))
    stream.write(body)
    stream.write(attachment)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """Reads one message; BrokenMessageError at the end of the stream."""
    record_bytes, attached_bytes = _LENGTHS.unpack(_exactly(stream, _LENGTHS.size))
    if record_bytes > _MAX_RECORD_BYTES:
        raise BrokenMessageError(f"a record of {record_bytes:,} bytes")
    try:
        record = json.loads(_exactly(stream, record_bytes))
    except ValueError as error:
        raise BrokenMessageError("a record that is not JSON") from error
    if not isinstance(record, dict):
        raise BrokenMessageError("a record that is no object")
    return record, _exactly(stream, attached_bytes)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if data is None or len(data) != size:
        raise BrokenMessageError("the stream ended")
    return data
