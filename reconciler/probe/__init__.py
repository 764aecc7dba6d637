"""One close look at what is there; the same for the watcher and for the cleaner. Read only."""
