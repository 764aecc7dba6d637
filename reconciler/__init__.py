"""Finds and removes what containerd leaves behind; never harms what is alive.

Data flows one way: watch -> probe -> decide -> worker; an outcome is one more observation.

    watch/                      reports what may have changed
    containerd/                 asks containerd, and follows its events
    probe/                      reads the node: bundles, processes, cgroups, mounts; never writes
    model/, decide/             PURE: every value, defined once; what should happen
    worker/                     the only code that changes the state tree or ends processes
    setup.py                    what a session needs to know; a value, loads next to nothing
    loop/, assembly.py          joins the stages; wires adapters to ports
    ports.py                    every side effect, on one page
    supervision.py              keeps a part that fails from ending the whole
    journal/, telemetry/        listeners: the journal and its replay; logs, metrics, HTTP
    present/                    lays values out as tables, JSON, HTML; reasons come with them
    cli/, daemon/, settings/    what operators run; what they may configure
    errors.py                   exit codes, and errors an operator reads
    unloaded.py                 keeps out what libraries load and nothing uses
    kernel/, clock.py           the only ctypes; the only clock
    demo/, testing/             a throwaway node to try it on; fixtures for test suites
"""

__version__ = "0.1.0"
