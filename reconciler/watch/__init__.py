"""Watch: what may have changed. Hints and resyncs flow out; no file of a bundle is looked at.

`select` is the watcher the loop knows: it runs the backend that works now (`inotify`, else
`watchfiles`) and steps down and up between them. `exits` reports the end of processes, `mounts`
changes of the mount table.
"""
