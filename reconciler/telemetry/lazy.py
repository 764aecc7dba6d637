"""structlog without rich: it draws in rich and pygments, for coloured tracebacks that nobody logs.

They cost some four megabytes in a process that runs for as long as the machine. Whoever needs rich
for a view imports it as ever, before this module or after it.
"""

import sys
from typing import Final

_HIDDEN: Final = "rich" not in sys.modules
if _HIDDEN:
    sys.modules["rich"] = None  # type: ignore[assignment]  # "not there"

import structlog  # noqa: E402 - once rich is hidden
from structlog.typing import (  # noqa: E402 - the same
    EventDict,
    FilteringBoundLogger,
    Processor,
    WrappedLogger,
)

if _HIDDEN:
    del sys.modules["rich"]

__all__ = ["EventDict", "FilteringBoundLogger", "Processor", "WrappedLogger", "structlog"]
