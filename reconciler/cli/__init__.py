"""The command line: parses, asks, prints. Decides nothing and touches no bundle itself.

Words flow in, sessions (:mod:`reconciler.cli.session`) do the work, tables and JSON flow out. This
module imports next to nothing, so that ``--version`` and ``--help`` answer at once.
"""

import gc
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from reconciler import unloaded

if TYPE_CHECKING:
    import click


def main() -> NoReturn:
    """Run ``containerd-reconciler``."""
    gc.disable()  # until there may be garbage: see reconciler.cli.garbage
    unloaded.leave_out()
    from reconciler.cli.app import app

    _run(app, "containerd-reconciler")


def cleanup_main() -> NoReturn:
    """Run ``containerd-cleanup``: `clean` under the name that existing units use."""
    gc.disable()  # as above
    unloaded.leave_out()
    from reconciler.cli.commands.clean import unattended
    from reconciler.cli.globals import UNATTENDED

    _run(unattended(), UNATTENDED)


def _run(command: "click.Command", program: str) -> NoReturn:
    from reconciler.cli.app import run
    from reconciler.cli.completing import VARIABLE, answer

    if VARIABLE in os.environ:
        sys.exit(answer(command, program, os.environ[VARIABLE]))
    code = run(command, sys.argv[1:], program)
    gc.freeze()  # the interpreter, before it ends, need not look through all that is left
    sys.exit(code)
