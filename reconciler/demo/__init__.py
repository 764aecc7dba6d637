"""The demo: a throw-away runtime tree with live and dead tasks, made without containerd or root.

:mod:`~reconciler.demo.node` makes it and takes it away, :mod:`~reconciler.demo.fixtures` says which
bundles are in it and what is promised of each, :mod:`~reconciler.demo.promises` tells whether the
promises were kept. Nothing here cleans a bundle: that is what the demo shows.
"""
