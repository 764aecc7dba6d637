"""Draw the dashboard from a fleet's run: `python -m tests.fleet.picture`, also by `make pictures`.

It takes three minutes: twelve daemons, half a minute of peace, then everything goes wrong that
`tests.fleet.nodes` has, and half of it is mended a minute later. It needs root and chromium.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.fleet import dashboard, drawing
from tests.fleet.drawing import Span
from tests.fleet.nodes import Fleet, fleet
from tests.fleet.server import Prometheus, serving
from tests.pictures import PICTURES
from tests.support.browser import Browser

NODES: Final = 12
PEACE, TROUBLE, AFTER = 30.0, 60.0, 60.0
"""Seconds."""


def live(nodes: Fleet, seconds: float) -> None:
    """Let a task die now and then where the daemon enforces, so that it has something to do."""
    end = time.monotonic() + seconds
    quiet = [node for name, node in nodes.nodes.items() if name.endswith("quiet")]
    while time.monotonic() < end:
        now = time.monotonic()
        quiet[int(now) % len(quiet)].site.make(f"job-{now:.3f}".replace(".", "-"))
        time.sleep(0.5)


def draw(prometheus: Prometheus, span: Span, directory: Path, target: Path) -> None:
    """Draw it as a browser shows it."""
    shipped = dashboard.read()
    page = directory / "dashboard.html"
    page.write_text(drawing.page(shipped, prometheus, span))
    size = f"--window-size={drawing.WIDTH},{drawing.height(shipped)}"
    target.write_bytes(Browser.within(directory).picture(page, "", size))


def main() -> int:
    """Run the fleet and draw."""
    with tempfile.TemporaryDirectory(prefix="fleet-") as name:
        directory = Path(name)
        with fleet(directory, NODES) as nodes:
            ports = {one: node.site.port for one, node in nodes.nodes.items()}
            with serving(directory / "prometheus", ports) as prometheus:
                start = time.time()
                live(nodes, PEACE)
                nodes.cause()
                live(nodes, TROUBLE)
                nodes.mend(list(nodes.nodes)[: NODES // 2])
                live(nodes, AFTER)
                span = Span(start, time.time(), step=2.0)
                draw(prometheus, span, directory, PICTURES / "dashboard.png")
    size = (PICTURES / "dashboard.png").stat().st_size
    sys.stdout.write(f"{PICTURES / 'dashboard.png'}: {size / 1000:.0f} kB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
