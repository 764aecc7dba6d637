"""Files: configuration files as tables, and which of them there are. Reads only, and not much.

What cannot be read or is no TOML is a problem for the operator, with its place in the file. The few
spellings that are accepted beside the one of the schema are rewritten to it here; what is not
understood stays as it is, for the check to find.
"""

import os
import stat
from typing import Final

import msgspec
import tomli

from reconciler.settings.check import Table
from reconciler.settings.problems import Problem, SettingsError

LARGEST: Final = 1 << 20
"""Bytes. The largest configuration anybody writes by hand is a hundredth of it."""

CGROUPS_PLUGIN: Final = "io.containerd.monitor.v1.cgroups"
"""The plugin of containerd's own configuration under which some look for the budgets."""

_BUDGETS: Final = ("max_runtime_dir_age", "max_runtime_dir_size")
_ATTEMPTS: Final = 3
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")


class Places(msgspec.Struct, frozen=True):
    """Where configuration lies; a later one wins over an earlier one.

    Attributes:
        vendor: The distributor's file.
        main: The operator's file.
        directory: Drop-ins, ``*.toml``, in the order of their names.
    """

    vendor: str = "/usr/lib/containerd-reconciler/config.toml"
    main: str = "/etc/containerd-reconciler/config.toml"
    directory: str = "/etc/containerd-reconciler/conf.d"

    def present(self) -> list[str]:
        """List the files there are, the strongest last.

        Raises:
            SettingsError: The directory of drop-ins cannot be read.
        """
        files = [path for path in (self.vendor, self.main) if os.path.lexists(path)]
        try:
            names = sorted(os.listdir(self.directory))
        except FileNotFoundError:
            names = []
        except OSError as error:
            raise _refused(self.directory, f"cannot be listed: {error.strerror}") from error
        wanted = [name for name in names if name.endswith(".toml") and not name.startswith(".")]
        return files + [os.path.join(self.directory, name) for name in wanted]


USUAL: Final = Places()


def read_table(path: str) -> Table:
    """Read one file.

    Raises:
        SettingsError: It cannot be read, or is not TOML.
    """
    try:
        data = _read(path)
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise _refused(path, f"cannot be read: {reason}") from error
    try:
        return tomli.loads(data.decode("utf-8-sig"))  # some editors begin it with a mark
    except UnicodeDecodeError as error:
        if data.startswith(_UTF_16):
            raise _refused(path, "is UTF-16 text; save it as UTF-8") from error
        line = data.count(b"\n", 0, error.start) + 1
        raise _refused(path, f"line {line}: is not UTF-8 text") from error
    except tomli.TOMLDecodeError as error:
        raise _refused(path, f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise _refused(path, "is nested too deeply") from error
    except ValueError as error:  # more digits than Python converts
        raise _refused(path, "holds a number that is too long") from error


def _read(path: str) -> bytes:
    """Read a whole regular file that stays the same meanwhile.

    An editor that writes in place, and not by renaming, must not give half a configuration. That
    it paused half way cannot be seen: who reloads waits until a file has been quiet for a while.
    """
    for _ in range(_ATTEMPTS):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                what = "is a directory" if stat.S_ISDIR(before.st_mode) else "is not a file"
                raise _refused(path, what)
            if before.st_size > LARGEST:
                raise _refused(path, f"is larger than {LARGEST >> 20} MiB")
            data, again = os.pread(fd, LARGEST + 1, 0), os.pread(fd, LARGEST + 1, 0)
            after = os.fstat(fd)
        finally:
            os.close(fd)
        same = (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
        if same and data == again and len(data) == after.st_size:
            return data
    raise _refused(path, "changes while it is read")


def _refused(path: str, reason: str) -> SettingsError:
    return SettingsError([Problem(path, "", reason)])


def normalised(table: Table) -> tuple[Table, list[str]]:
    """Rewrite a file's table.

    Returns:
        The table, and a hint for each spelling that belongs to another program.
    """
    table, hints = _budgets(table)
    rules = table.get("rule")
    if isinstance(rules, list):
        table["rule"] = [_rule(rule) for rule in rules]
    return table, hints


def _budgets(table: Table) -> tuple[Table, list[str]]:
    """Move the budgets from containerd's plugin table to ``[cleanup]``; what is there wins."""
    table = dict(table)
    plugins, cleanup = table.get("plugins"), table.get("cleanup", {})
    if not (isinstance(plugins, dict) and isinstance(cleanup, dict)):
        return table, []
    plugin = plugins.get(CGROUPS_PLUGIN)
    if plugins.keys() != {CGROUPS_PLUGIN} or not isinstance(plugin, dict):
        return table, []
    if not plugin.keys() <= set(_BUDGETS):
        return table, []
    del table["plugins"]
    table["cleanup"] = {**plugin, **cleanup}
    place = f'[plugins."{CGROUPS_PLUGIN}"]'
    return table, [
        f"{name} in {place} is ignored, because cleanup.{name} is there too"
        if name in cleanup
        else f"{name} in {place} is taken as cleanup.{name}; write it there"
        for name in plugin
    ]


def _rule(rule: object) -> object:
    if not isinstance(rule, dict) or not isinstance(rule.get("match"), dict):
        return rule
    match = rule["match"]
    plain: Table = {}
    annotations: Table = {}
    for name, value in match.items():
        prefix, dot, key = name.partition(".")
        if name == "annotation" and isinstance(value, dict):
            annotations |= _flat(value)
        elif prefix == "annotation" and dot:
            annotations[key] = value
        else:
            plain[name] = value
    if annotations:
        plain["annotation"] = annotations
    return {**rule, "match": plain}


def _flat(table: Table, prefix: str = "") -> Table:
    """Undo TOML's nesting of dots: an annotation's key is one name, however many dots it has."""
    flat: Table = {}
    for name, value in table.items():
        key = f"{prefix}.{name}" if prefix else name
        if isinstance(value, dict):
            flat |= _flat(value, key)
        else:
            flat[key] = value
    return flat
