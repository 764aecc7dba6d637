"""Figures beside the peers, in one run: ``python -m tests.bench [FIGURE ...]``.

One module per figure: `bench_<name>.py` has ``measure(plan)``, which gives rows as it goes. They
are figures and not verdicts: nothing here fails because something was slow, only because something
was wrong (a bundle that stayed, an event that was lost).
"""
