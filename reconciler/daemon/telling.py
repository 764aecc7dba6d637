"""Telling: the daemon's own lines in the log, beside those about bundles."""

from reconciler.ports import Clock
from reconciler.present.words import iso
from reconciler.telemetry.lean import FilteringBoundLogger


class Teller:
    """Writes lines in the form of all others.

    Args:
        logger: Where records go.
        clock: Dates them.
    """

    def __init__(self, logger: FilteringBoundLogger, clock: Clock) -> None:
        self._logger = logger
        self._clock = clock

    def tell(self, event: str, **fields: object) -> None:
        """Say what goes on."""
        self._logger.info(event, **fields, timestamp=iso(self._clock.wall()))

    def warn(self, event: str, **fields: object) -> None:
        """Say what is wrong."""
        self._logger.warning(event, **fields, timestamp=iso(self._clock.wall()))
