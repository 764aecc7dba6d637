"""What a program does to the machine, as the kernel sees it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.e2e.apart import Word

_MUTATING: Final = """
    unlink unlinkat rmdir rename renameat renameat2 mkdir mkdirat mknod mknodat link linkat symlink
    symlinkat truncate ftruncate fallocate chmod fchmod fchmodat fchmodat2 chown fchown lchown
    fchownat utime utimes utimensat futimesat setxattr lsetxattr fsetxattr removexattr lremovexattr
    fremovexattr mount umount umount2 move_mount open_tree fsopen fsconfig fsmount fspick
    mount_setattr pivot_root chroot unshare setns kill tkill tgkill rt_sigqueueinfo
    rt_tgsigqueueinfo pidfd_send_signal flock swapon swapoff sethostname reboot creat
    copy_file_range
"""
_OPENING: Final = ("open", "openat", "openat2")
_WRITING: Final = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_TMPFILE")
_CALL: Final = re.compile(r"^(?P<pid>\d+) +(?P<name>\w+)\((?P<rest>.*)$")
_SIGNAL: Final = re.compile(r"^(?:\d+<pid:)?(?P<pid>\d+)")
_OWN: Final = re.compile(r'"/dev/(?:null|tty)"|^\d+</memfd:|/__pycache__[/"]')
"""What is nobody else's: memory, nothing, and the bytecode the interpreter keeps."""


_READING: Final = frozenset({"syscall_0x1c9", "syscall_0x1ca"})
"""statmount and listmount: an older strace knows their numbers only, and cannot leave them out."""


def tracing(record: Path) -> list[Word]:
    """Make the command that traces what follows it, and all processes it starts."""
    calls = ",".join(f"?{name}" for name in (*_MUTATING.split(), *_OPENING))
    return ["strace", "-f", "-qq", "--decode-fds=path,pidfd", "-o", record, "-e", f"trace={calls}"]


def mutations(record: Path) -> list[str]:
    """List the calls that change anything, or try to; signals among one's own are none."""
    lines = record.read_text(errors="replace").splitlines()
    calls = [call for line in lines if (call := _CALL.match(line))]
    own = {call["pid"] for call in calls}
    return [call[0] for call in calls if _changes(call["name"], call["rest"], own)]


def calls(record: Path) -> Iterator[str]:
    """Name every call that was seen."""
    for line in record.read_text(errors="replace").splitlines():
        if call := _CALL.match(line):
            yield call["name"]


def _changes(name: str, rest: str, own: set[str]) -> bool:
    if _OWN.search(rest) or name in _READING:
        return False
    if name in _OPENING:
        return bool(_WRITING.search(rest))
    if name in ("kill", "tkill", "tgkill", "pidfd_send_signal"):
        to = _SIGNAL.match(rest)
        return to is None or to["pid"] not in own
    return True
