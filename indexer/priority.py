"""Being a gentle guest: low priority, and knowing whether the machine runs on its battery."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_SUPPLIES = Path("/sys/class/power_supply")
_NICENESS = 10
_PMSET = "/usr/bin/pmset"
_BELOW_NORMAL = 0x4000  # Windows' BELOW_NORMAL_PRIORITY_CLASS


def lower_priority() -> None:
    """Lets every other program go first, from now on; call it before threads are started.

    Linux takes the priority of reading and writing from the same number. Where the system refuses,
    the priority stays as it is.
    """
    if sys.platform == "win32":
        import ctypes

        kernel = ctypes.windll.kernel32
        kernel.SetPriorityClass(kernel.GetCurrentProcess(), _BELOW_NORMAL)
    else:
        try:
            os.nice(max(0, _NICENESS - os.nice(0)))
        except OSError:
            return


def on_battery(supplies: Path = _SUPPLIES) -> bool | None:
    """Whether the machine lives on its battery now; None where that cannot be known.

    ``supplies`` is Linux's folder of power supplies.
    """
    if sys.platform == "win32":
        return _windows_on_battery()
    if sys.platform == "darwin":
        return _macos_on_battery()
    return _linux_on_battery(supplies)


def _linux_on_battery(supplies: Path) -> bool | None:
    """By https://docs.kernel.org/power/power_supply_class.html: a plug counts before a battery.

    What is charged by USB is known by its battery alone: some ports call themselves online always.
    """
    try:
        folders = sorted(supplies.iterdir())
    except OSError:
        return None
    discharging: bool | None = None
    for folder in folders:
        kind = _read(folder / "type")
        if kind == "Mains" and _read(folder / "online") == "1":
            return False
        # A wireless mouse has a battery, too; its scope says so.
        if kind == "Battery" and _read(folder / "scope") != "Device":
            discharging = bool(discharging) or _read(folder / "status") == "Discharging"
    return discharging


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _macos_on_battery() -> bool | None:
    try:
        told = subprocess.run(
            [_PMSET, "-g", "batt"], capture_output=True, text=True, timeout=5, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    if "'Battery Power'" in told:
        return True
    return False if "'AC Power'" in told else None


def _windows_on_battery() -> bool | None:
    if sys.platform != "win32":
        return None
    import ctypes
    from ctypes import wintypes

    class PowerStatus(ctypes.Structure):  # SYSTEM_POWER_STATUS
        _fields_ = (
            ("line", ctypes.c_ubyte),
            ("battery", ctypes.c_ubyte),
            ("percent", ctypes.c_ubyte),
            ("saver", ctypes.c_ubyte),
            ("seconds_left", wintypes.DWORD),
            ("seconds_full", wintypes.DWORD),
        )

    status = PowerStatus()
    if not ctypes.windll.kernel32.GetSystemPowerStatus(ctypes.byref(status)):
        return None
    return {0: True, 1: False}.get(status.line)
