"""Becomes the fork server: ``python -m reconciler.worker FD``."""

import gc

gc.disable()  # before the imports: what they make is no garbage; the fork server enables it

from reconciler.worker.forkserver import main  # noqa: E402 - as said above

main()
