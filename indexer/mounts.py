"""Where file events do not arrive: network and shared file systems, by the system's mounts."""

from __future__ import annotations

import re
from pathlib import Path

# What another machine, or the host of a virtual one, changes there raises no event here.
SILENT_TYPES = frozenset(
    (
        "9p",  # WSL's /mnt/c, and shared folders of virtual machines
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "davfs",
        "drvfs",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "orangefs",
        "prl_fs",  # Parallels
        "smb3",
        "smbfs",
        "vboxsf",
        "virtiofs",
        "vmhgfs",
    )
)
SILENT_FUSE = frozenset(  # fuse.NAME; other FUSE file systems tell of changes made through them
    (
        "afpfs",
        "ceph-fuse",
        "davfs",
        "davfs2",
        "glusterfs",
        "grpcfuse",
        "gvfsd-fuse",
        "osxfs",
        "rclone",
        "s3fs",
        "smbnetfs",
        "sshfs",
        "vmhgfs-fuse",
    )
)
_MOUNTS = Path("/proc/self/mounts")


def silent_mount(folder: Path, mounts: str | None = None) -> str | None:
    """The type and place of a mount that ``folder`` lies in, or holds, and that raises no events.

    For example ``nfs4 at /mnt/nas``; None where events arrive, and where the system has no list of
    mounts. ``mounts`` is the text of Linux's /proc/self/mounts, by default the system's own.
    """
    if mounts is None:
        try:
            mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return None
    covering: tuple[int, str, str] | None = None
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point, kind = Path(_unescaped(fields[1])), fields[2]
        if folder.is_relative_to(point):
            depth = len(point.parts)
            if covering is None or depth >= covering[0]:  # a later mount hides an earlier one
                covering = (depth, kind, f"{kind} at {point}")
        elif point.is_relative_to(folder) and _is_silent(kind):
            return f"{kind} at {point}"
    if covering is not None and _is_silent(covering[1]):
        return covering[2]
    return None


def _is_silent(kind: str) -> bool:
    family, _, name = kind.partition(".")
    return kind in SILENT_TYPES or (family in ("fuse", "fuseblk") and name in SILENT_FUSE)


def _unescaped(field: str) -> str:
    """Blanks, tabs, newlines and backslashes are written as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), field)
