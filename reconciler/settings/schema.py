"""Schema: every key of the configuration, its type and its default. The one place of defaults.

Values are kept as they were written (``10m``, ``10GB``), so that what is shown is what was said;
:mod:`reconciler.settings.types` says what each may be, and properties give seconds and bytes.
"""

from enum import Enum
from typing import Annotated

import msgspec

from reconciler.model.policy import DebrisAction, Orphans, Shims
from reconciler.settings import types
from reconciler.settings.units import parse_duration


class Mode(Enum):
    """Whether leftovers are removed."""

    OBSERVE = "observe"
    ENFORCE = "enforce"


class Backend(Enum):
    """How to watch."""

    AUTO = "auto"
    INOTIFY = "inotify"
    WATCHFILES = "watchfiles"
    POLL = "poll"


class LogFormat(Enum):
    """Form of the log."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class LogLevel(Enum):
    """Least important record that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class KindAction(Enum):
    """What to do with debris of one kind."""

    INHERIT = "inherit"
    REPORT = "report"
    CLEAN = "clean"


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the configuration."""


class Containerd(Section, frozen=True):
    """Where containerd keeps its things."""

    state: types.Tree = "/run/containerd"
    root: types.Tree = "/var/lib/containerd"
    address: types.Socket = "/run/containerd/containerd.sock"
    allow_disk: bool = False
    runc_shims: types.ShimNames = ""


class Watch(Section, frozen=True):
    """How changes are noticed."""

    backend: Backend = Backend.AUTO
    relist: types.Interval = "5m"

    @property
    def relist_seconds(self) -> float:
        """Seconds between two listings of the whole tree."""
        return parse_duration(self.relist)


class Cleanup(Section, frozen=True):
    """When leftovers are due, where no rule says otherwise."""

    grace: types.Duration = "10m"
    threshold: types.Duration = "0s"
    settle: types.Duration = "2m"
    max_runtime_dir_age: types.MaxAge = "168h"
    max_runtime_dir_size: types.MaxSize = "10GB"
    orphans: Orphans = Orphans.REPORT
    shims: Shims = Shims.REPORT
    lazy_unmount: bool = False
    parallel: Annotated[int, msgspec.Meta(ge=1, le=64)] = 8


class DebrisKindOf(Section, frozen=True):
    """What is said of one kind of debris."""

    action: KindAction = KindAction.INHERIT
    age: types.Duration = "10m"


class ShimKind(Section, frozen=True):
    """What is said of shims without a bundle; no action for debris ends one."""

    age: types.Duration = "0s"


class Debris(Section, frozen=True, rename="kebab"):
    """What is left outside of bundles, where no rule says otherwise."""

    action: DebrisAction = DebrisAction.REPORT
    hidden_bundle: DebrisKindOf = DebrisKindOf()
    shim_socket: DebrisKindOf = DebrisKindOf()
    fifo_dir: DebrisKindOf = DebrisKindOf(age="1h")
    runc_state: DebrisKindOf = DebrisKindOf()
    cgroup: DebrisKindOf = DebrisKindOf()
    work_dir: DebrisKindOf = DebrisKindOf()
    mount: DebrisKindOf = DebrisKindOf(age="0s")
    shim: ShimKind = ShimKind()


class Brake(Section, frozen=True):
    """Rules that may only take actions away."""

    max_per_minute: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 120
    hold: types.Duration = "10m"
    mass_deaths: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 10


class Match(Section, frozen=True):
    """Globs a rule matches on; what is left out matches everything."""

    namespace: types.IdentifierGlob | None = None
    id: types.IdentifierGlob | None = None
    pod_namespace: types.NameGlob | None = None
    pod: types.NameGlob | None = None
    container: types.NameGlob | None = None
    annotation: dict[str, types.TextGlob] = {}


class Rule(Section, frozen=True):
    """A ``[[rule]]``; what is left out is as in ``[cleanup]`` and ``mode``."""

    name: types.Name
    match: Match
    protect: bool = False
    mode: Mode | None = None
    grace: types.Duration | None = None
    threshold: types.Duration | None = None
    max_runtime_dir_age: types.MaxAge | None = None
    max_runtime_dir_size: types.MaxSize | None = None
    orphans: Orphans | None = None
    debris: DebrisAction | None = None
    shims: Shims | None = None


class Journal(Section, frozen=True):
    """The recording of a run; an empty path records nothing."""

    path: types.OptionalPath = ""
    max_size: types.Size = "64MiB"
    keep: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 4

    @property
    def max_bytes(self) -> int:
        """Bytes after which a new file is begun."""
        return types.size(self.max_size)


class Http(Section, frozen=True):
    """Endpoints; an empty one is switched off."""

    listen: types.Listen = "127.0.0.1:9618"
    socket: types.OptionalSocket = "/run/containerd-reconciler/http.sock"


class Log(Section, frozen=True):
    """The log on standard error."""

    format: LogFormat = LogFormat.AUTO
    level: LogLevel = LogLevel.INFO


class Settings(Section, frozen=True):
    """The whole configuration."""

    mode: Mode = Mode.OBSERVE
    containerd: Containerd = Containerd()
    watch: Watch = Watch()
    cleanup: Cleanup = Cleanup()
    debris: Debris = Debris()
    brake: Brake = Brake()
    rule: tuple[Rule, ...] = ()
    journal: Journal = Journal()
    http: Http = Http()
    log: Log = Log()


def json_schema() -> bytes:
    """Give the JSON Schema of a configuration file (TOML maps onto JSON here)."""
    return msgspec.json.format(msgspec.json.encode(msgspec.json.schema(Settings)), indent=2)
