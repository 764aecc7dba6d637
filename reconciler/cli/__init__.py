"""The command line: parses, asks, prints. Decides nothing and touches no bundle itself.

Words flow in, sessions (:mod:`reconciler.cli.session`) do the work, tables and JSON flow out. This
module imports next to nothing, so that ``--version`` and ``--help`` answer at once.
"""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run ``containerd-reconciler``."""
    from reconciler.cli.app import app
    from reconciler.cli.ending import run

    sys.exit(run(app, sys.argv[1:], "containerd-reconciler"))


def cleanup_main() -> NoReturn:
    """Run ``containerd-cleanup``: `clean` under the name that existing units use."""
    from reconciler.cli.commands.clean import clean
    from reconciler.cli.ending import run

    sys.exit(run(clean, sys.argv[1:], "containerd-cleanup"))
