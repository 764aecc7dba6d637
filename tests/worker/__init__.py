"""The cleaner against the real kernel, in private mount namespaces."""
