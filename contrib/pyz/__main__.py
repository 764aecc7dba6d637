"""First steps of the single file: a place that nobody else can write to, then shiv's bootstrap.

Compiled modules cannot be loaded out of an archive, so shiv unpacks all of it, once, and runs what
it finds there ever after. Whoever can write there, or makes the directory first, runs code as us,
and we may be root. So root's place is none that the environment names (`sudo` may keep the caller's
HOME), and every directory on the way is asked for its owner and mode. It is not /run, which Debian
mounts `noexec`.
"""

import os
import stat
import sys

PYTHON = (0, 0)  # replaced by the build
NAME = "containerd-reconciler"
SYSTEM = "/var/cache/" + NAME
NO_PERMISSION = 77
OTHERS = stat.S_IWGRP | stat.S_IWOTH


def main():
    """Unpack where that is safe, and run."""
    if sys.version_info[:2] != PYTHON:
        wanted, here = (f"{major}.{minor}" for major, minor in (PYTHON, sys.version_info[:2]))
        stop(f"this file is for Python {wanted}, and this is {here}; run it by python{wanted}", 1)
    place = os.path.realpath(os.environ.get("SHIV_ROOT") or default())
    is_new = not os.path.exists(place)
    try:
        os.makedirs(place, 0o700, exist_ok=True)
    except OSError as error:
        stop(f"{place} cannot be made ({error.strerror}); name another directory by SHIV_ROOT")
    check(place)
    if is_new:
        say(f"unpacking into {place}, once; it may be removed at any time")
    for name in [name for name in os.environ if name.startswith("SHIV_")]:
        del os.environ[name]  # which would change what is run
    os.environ["SHIV_ROOT"] = place

    from _bootstrap import bootstrap

    bootstrap()


def default():
    """Give the place of whoever runs this."""
    if os.geteuid() == 0:
        return SYSTEM
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), NAME)


def check(place):
    """Stop unless nobody but us and root can change a directory, or what its name means."""
    path = place
    while True:
        found = os.lstat(path)
        is_sticky = found.st_mode & stat.S_ISVTX and path != place
        if found.st_uid not in (0, os.geteuid()):
            stop(f"{path} belongs to user {found.st_uid}, who could change what is run")
        if found.st_mode & OTHERS and not is_sticky:
            stop(f"others may write to {path} and change what is run")
        if path == "/":
            return
        path = os.path.dirname(path)


def say(line):
    """Tell whoever waits."""
    sys.stderr.write(f"{NAME}: {line}\n")


def stop(line, code=NO_PERMISSION):
    """End with a reason."""
    say(line)
    sys.exit(code)


main()
