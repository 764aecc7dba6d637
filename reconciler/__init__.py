"""Finds and removes what containerd leaves behind; never harms what is alive.

Data flows one way: watch -> model -> decide -> act. The outcome of an act is one more observation.

    watch/, containerd/         report what may have changed
    probe/                      inspects one bundle closely
    model/, decide/             PURE: every value, defined once; what should happen
    worker/                     the only code that removes anything
    loop/, assembly.py          joins the stages; says which adapter stands behind which port
    ports.py                    every side effect, on one page
    stages.py, supervision.py   keep a part that fails from ending the whole
    journal/, telemetry/        listeners: the journal and its replay; logs, metrics, HTTP
    present/                    the one place where values become text: words, rows, JSON, HTML
    cli/, daemon/, settings/    what operators run; what they may configure
    kernel/, clock.py           the only ctypes; the only clock
    demo/, testing/             a throwaway node to try it on; fixtures for test suites
"""

__version__ = "0.1.0"
