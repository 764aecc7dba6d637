"""Tests of `reconciler.worker.debris`: real objects in private mount namespaces."""
