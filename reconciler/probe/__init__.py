"""One close look at what is there; the same eyes for the watcher and for the hands. Read only."""
