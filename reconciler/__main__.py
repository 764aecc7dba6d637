"""``python -m reconciler`` is ``containerd-reconciler``."""

from reconciler.cli import main

if __name__ == "__main__":
    main()
