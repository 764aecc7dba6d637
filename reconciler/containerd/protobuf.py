"""protobuf without its messages in Python, where it has them in C.

It draws in both, and text formats with them, and has use for one: they would cost a daemon 0.8 MiB
and each start that asks containerd some milliseconds. Whoever needs them imports them as ever,
before this module or after it.
"""

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Final

_IN_PYTHON: Final = "google.protobuf.internal.python_message"
_HIDDEN: Final = _IN_PYTHON not in sys.modules and find_spec("google._upb._message") is not None
if _HIDDEN:
    sys.modules[_IN_PYTHON] = ModuleType(_IN_PYTHON)

from reconciler.containerd import wire_pb2 as wire  # noqa: E402 - once that is hidden

if _HIDDEN:
    del sys.modules[_IN_PYTHON]

__all__ = ["wire"]
