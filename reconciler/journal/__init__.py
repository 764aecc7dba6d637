"""The memory of a run: what entered the engine and what it concluded, line by line.

A recorder listens and never delays; a replay hands the same values to the same engine, in virtual
time and without hands. Data flows recorder -> codec -> writer -> file -> reader -> codec -> replay.
The format is described in :mod:`reconciler.journal.wire`.
"""
