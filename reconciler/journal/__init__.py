"""The memory of a run: what entered the engine and what it concluded, line by line.

A recorder listens and never delays; a replay hands the same values to the same engine, in virtual
time and without a cleaner. Data flows listener -> recorder -> writer -> file -> reader -> replay. A
line is the values of `reconciler.model` themselves, as :mod:`reconciler.journal.lines` describes.
"""
