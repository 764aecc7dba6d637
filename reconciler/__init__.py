"""Finds and removes what containerd leaves behind; never harms what lives.

Data flows one way: watch -> model -> decide -> act, and an outcome is one more observation.

    watch/, containerd/   what may have changed          probe/      one close look at it
    model/                PURE: what we believe          decide/     PURE: what should happen
    worker/               the only cleaner               loop/       joins the stages
    ports.py              every side effect on one page  kernel/     the only ctypes
    stages.py, supervision.py   what is beside the engine may fail, and all else goes on
    journal/, telemetry/  listeners: memory of a run, logs and metrics
    present/              the one place where values become text: words, rows, JSON, HTML
    cli/, daemon.py       what operators see             settings/   what they may say
"""

__version__ = "0.1.0"
