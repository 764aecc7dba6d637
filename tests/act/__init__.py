"""The hands against the real kernel, in private mount namespaces."""
