"""Becomes the fork server: ``python -m reconciler.worker FD``."""

import gc

from reconciler import unloaded

if __name__ == "__main__":
    gc.disable()  # before the imports: what they make is no garbage; the fork server enables it
    unloaded.leave_out_typing_extensions()
    unloaded.leave_out()
    from reconciler.worker.forkserver import main

    main()
