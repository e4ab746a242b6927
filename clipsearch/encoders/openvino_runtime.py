"""OpenVINO, without the telemetry that it brings along and without its converter.

Importing ``openvino`` imports the converter, which tells Google Analytics of it, from a process of
its own, through the package ``openvino_telemetry``. Nothing of a private search engine may do that;
OpenVINO does without the package where it is missing, so here it is missing. The converter alone
takes as long to import as the rest, so it comes at its first call.
"""

from __future__ import annotations

import sys
from typing import Any

_TELEMETRY = "openvino_telemetry"
_CONVERTER = "openvino.tools.ovc"


def convert_model(*arguments: Any, **options: Any) -> Any:
    """``openvino.convert_model``: makes OpenVINO's model of a torch module."""
    from openvino.tools.ovc import convert_model as convert

    return convert(*arguments, **options)


def _import_openvino() -> Any:
    missing: Any = None  # what sys.modules holds for a module that cannot be imported
    sys.modules.setdefault(_TELEMETRY, missing)
    has_converter = _CONVERTER in sys.modules
    sys.modules.setdefault(_CONVERTER, missing)
    try:
        import openvino
    finally:
        if not has_converter:
            del sys.modules[_CONVERTER]
    if not hasattr(openvino, "convert_model"):
        openvino.convert_model = convert_model  # as others in this process expect it
    return openvino


ov = _import_openvino()
