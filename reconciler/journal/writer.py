r"""The writer: a process of its own that puts lines into a file, and the only one that may hang.

Started by file name with nothing but the standard library, so that it costs little. It reads lines
from a socket until the other end is closed, and never asks the recorder to wait. What it cannot
write it counts, and says so in the file and to the recorder when writing works again. A line is
written whole or not at all. While it writes a file it holds its lock, and moves none that another
writer holds. A line of :data:`ROTATE` means that the next line is the header of a
new file.

    recorder -> writer   lines
    writer -> recorder   b"lost 3\n", b"why <text>\n"
"""

import errno
import fcntl
import gzip
import json
import os
import select
import shutil
import signal
import socket
import stat
import sys
import time  # noqa: TID251 - a process of its own, that does not know the package

ROTATE = b"\x1e\n"
MAGIC = b'{"journal":"containerd-reconciler"'
LOST = b'{"lost":'
_CHUNK = 1 << 16
_RETRY = 1.0


class Lost(Exception):  # noqa: N818 - no error of the program: the file's state
    """The file cannot be written now."""


class Writer:
    """One journal file and those before it, ``FILE.1``, ``FILE.2.gz``, ...; it keeps some."""

    def __init__(self, path: bytes, keep: int, *, compress: bool) -> None:
        self._path = path
        self._keep = keep
        self._compress = compress
        self._folder = -1
        self._name = os.path.basename(path)
        self._file = -1
        self._size = 0
        self._packer = 0
        self.lost = 0
        self.why = ""

    def begin_file(self) -> None:
        """Move what is there aside and begin a new file; Lost if that cannot be done now."""
        try:
            self._close()
            if self._folder < 0:
                folder = os.path.dirname(os.path.abspath(self._path))
                self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if self._is_ours():
                self._shift()
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self._name, flags, 0o600, dir_fd=self._folder)
            take_lock(self._file, fcntl.LOCK_EX)
            self._size = 0
        except OSError as error:
            raise Lost(_words(error)) from error

    def write(self, lines: bytes) -> None:
        """Append whole lines, or nothing: then it raises Lost, and the file is as it was."""
        try:
            if self._file < 0:
                raise Lost("no file")
            left = memoryview(lines)
            while left:
                left = left[os.write(self._file, left) :]
        except OSError as error:
            self._undo()
            raise Lost(_words(error)) from error
        self._size += len(lines)

    def end(self) -> None:
        """Close the file."""
        self._close()

    # ------------------------------------------------------------------ files

    def _undo(self) -> None:
        try:
            os.ftruncate(self._file, self._size)
            os.lseek(self._file, self._size, os.SEEK_SET)
        except OSError:
            # A torn line in the middle would be damage. As the last one it is what a crash leaves.
            self._close()

    def _close(self) -> None:
        if self._file >= 0:
            try:
                os.close(self._file)
            except OSError as error:
                self.why = _words(error)
            self._file = -1

    def _is_ours(self) -> bool:
        """Return whether a journal is in the way; anything else is never moved, and an OSError."""
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            there = os.open(self._name, flags, dir_fd=self._folder)
        except FileNotFoundError:
            return False
        try:
            is_file = stat.S_ISREG(os.fstat(there).st_mode)
            begin = os.read(there, len(MAGIC)) if is_file else b"?"
            if not take_lock(there, fcntl.LOCK_SH):
                raise OSError(errno.EBUSY, "another process writes this journal")
        finally:
            os.close(there)
        if begin == MAGIC or not begin:
            return True
        raise OSError(errno.EEXIST, "something is in the way that is no journal")

    def _shift(self) -> None:
        """Rename FILE.1 to FILE.2 and so on, the last one goes, FILE becomes FILE.1."""
        if self._packer:
            os.waitpid(self._packer, 0)
            self._packer = 0
        for ending in (b"", b".gz"):
            self._drop(b"%s.%d%s" % (self._name, max(self._keep, 1), ending))
        if not self._keep:
            self._drop(self._name)
            return
        for number in range(self._keep - 1, 0, -1):
            for ending in (b"", b".gz"):
                source = b"%s.%d%s" % (self._name, number, ending)
                self._rename(source, b"%s.%d%s" % (self._name, number + 1, ending))
        self._rename(self._name, self._name + b".1")
        if self._compress:
            self._pack(self._name + b".1")

    def _rename(self, source: bytes, target: bytes) -> None:
        try:
            os.rename(source, target, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except FileNotFoundError:
            return

    def _drop(self, name: bytes) -> None:
        try:
            os.unlink(name, dir_fd=self._folder)
        except FileNotFoundError:
            return

    def _pack(self, name: bytes) -> None:
        """Compress in a process of its own: lines go on coming meanwhile."""
        try:
            self._packer = os.fork()
        except OSError:
            return  # it stays as it is, only larger
        if self._packer == 0:
            code = 1
            try:
                os.nice(10)
                self._packed(name)
                code = 0
            finally:
                os._exit(code)

    def _packed(self, name: bytes) -> None:
        unfinished = name + b".gz.new"
        self._drop(unfinished)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        read = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self._folder)
        write = os.open(unfinished, flags, 0o600, dir_fd=self._folder)
        try:
            with (
                os.fdopen(read, "rb") as source,
                os.fdopen(write, "wb") as target,
                gzip.GzipFile("", "wb", 6, target) as packed,
            ):
                shutil.copyfileobj(source, packed, _CHUNK)
        except OSError:
            self._drop(unfinished)
            raise
        self._rename(unfinished, name + b".gz")
        self._drop(name)


class Session:
    """The conversation with the recorder."""

    def __init__(self, link: socket.socket, writer: Writer) -> None:
        self._link = link
        self._writer = writer
        self._rest = b""
        self._failing = False
        self._header_next = True
        self._header = b""
        self._try_at = 0.0
        self._unreported = 0

    def run(self) -> None:
        """Write until the recorder closes its end."""
        while True:
            ready, _, _ = select.select([self._link], [], [], _RETRY if self._failing else None)
            if not ready:
                self._write(b"")
                continue
            try:
                data = self._link.recv(_CHUNK)
            except ConnectionError:
                data = b""
            if not data:
                break
            self._take(data)
        if self._failing:
            self._write(b"")
        self._writer.end()

    def _take(self, data: bytes) -> None:
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        self._rest = data[end:]
        if end == 0:
            return
        if not (self._failing or self._header_next or ROTATE in data):
            self._write(data[:end])  # the usual case: many lines in one call
            return
        for line in data[:end].splitlines(keepends=True):
            self._take_line(line)

    def _take_line(self, line: bytes) -> None:
        if line == ROTATE:
            self._header_next = True
        elif self._header_next and line.startswith(MAGIC):
            self._header = line
            self._write(b"")
        elif self._failing and time.monotonic() < self._try_at:
            self._lose(line)
        else:
            self._write(line)

    def _write(self, lines: bytes) -> None:
        """Write lines; before them what is due: a new file's header, and how much is missing."""
        writer, loss = self._writer, b""
        try:
            if self._header_next:
                writer.begin_file()
                writer.write(self._header)
                self._header_next = False
            if writer.lost:
                lost = {"lost": writer.lost, "reason": writer.why}
                loss = json.dumps(lost, separators=(",", ":")).encode() + b"\n"
            writer.write(loss + lines)
        except Lost as lost:
            self._fail(lines, str(lost))
        else:
            if loss:
                self._write_lost()
            writer.lost = 0
            self._failing = False

    def _lose(self, lines: bytes) -> None:
        self._writer.lost += missing(lines)
        self._unreported += records(lines)

    def _fail(self, lines: bytes, why: str) -> None:
        self._lose(lines)
        if not self._failing or why != self._writer.why:
            self._say(b"why " + why.encode() + b"\n")
        self._writer.why = why
        self._failing = True
        self._try_at = time.monotonic() + _RETRY
        self._write_lost()

    def _write_lost(self) -> None:
        """Say how many more are lost, so that what comes next leans on none of them."""
        if self._say(b"lost %d\n" % self._unreported):
            self._unreported = 0

    def _say(self, line: bytes) -> bool:
        try:
            self._link.send(line, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            return False  # nobody is there to receive it, or not now
        return True


def take_lock(file: int, kind: int) -> bool:
    """Lock a journal until it is closed; false only if another process holds it."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a filesystem without locks tells nothing
    return True


def records(lines: bytes) -> int:
    """Count the records in lines. Headers are none, nor is a line that tells of lost ones.

    Those were counted when they were lost, so a line that tells of them may be lost as well.
    """
    others = (LOST, MAGIC, ROTATE)
    return sum(not line.startswith(others) for line in lines.splitlines(keepends=True))


def missing(lines: bytes) -> int:
    """Count the records that a journal without these lines has to call missing."""
    losses = [line for line in lines.splitlines() if line.startswith(LOST)]
    return records(lines) + sum(int(json.loads(line)["lost"]) for line in losses)


def _words(error: OSError) -> str:
    return error.strerror or "input/output error"


def main(arguments: list[str]) -> int:
    """Write lines from descriptor 0: ``writer.py PATH KEEP COMPRESS``."""
    path, keep, compress = arguments
    # A terminal's Ctrl-C and a service manager's SIGTERM reach the whole group. The end of the
    # recorder is the end of this, not before.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    link = socket.socket(fileno=os.dup(0))
    writer = Writer(os.fsencode(path), int(keep), compress=compress == "1")
    Session(link, writer).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
