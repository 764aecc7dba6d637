"""The daemon beside dead filesystems wherever a file or the operator can name one.

Health answers, other bundles are cleaned, an end is an end; and its own process, traced, goes to no
such place while it looks.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.safety import straced
from tests.safety.elsewhere import ARMED, MOUNTED, SHARED, dead, dead_at
from tests.safety.ground import Ground, ground, wait_for
from tests.safety.test_hung_daemon import Daemon, daemon, gone, in_time
from tests.support.bundles import Bundle
from tests.support.mountns import private_mounts

pytestmark = [pytest.mark.safety, pytest.mark.kernel]

_LOOKING = "%file,connect,openat2,statx,fstatfs,readlinkat,listxattr"
_QUOTED = re.compile(r'"(/(?:[^"\\]|\\.)*)"')


def judged(on: Ground, bundle: Bundle, verdict: str) -> Callable[[], bool]:
    """Wait for a verdict in the log."""
    words = f'"id":"{bundle.path.name}","verdict":"{verdict}"'
    return lambda: words in (on.site.base / "log").read_text()


@pytest.mark.fault("I18", "I25", "a file names a place on a dead filesystem")
@private_mounts
def test_nothing_that_one_bundle_names_delays_anybody(tmp_path: Path) -> None:
    straced.needed()
    with ground(tmp_path) as on:
        others = [on.dead(f"other-{n}") for n in range(3)]
        armed = {arm.__name__: on.dead(arm.__name__.replace("_", "-")) for arm in ARMED}
        for arm in ARMED:
            arm(armed[arm.__name__])
        covered = [mounted(on.dead(what.replace(" ", "-"))) for what, mounted in MOUNTED.items()]
        with dead(), dead_at(*covered), daemon(on) as running:
            stuck = armed["its_runtime_root"]
            running.until(judged(on, stuck, "unknown"))
            running.until(lambda: gone(others))
            _watch_it_look(running, stuck, tmp_path / "trace")
            in_time(running)
            assert stuck.path.exists()
        assert on.harm() == []


def _watch_it_look(running: Daemon, stuck: Bundle, trace: Path) -> None:
    """See that its own process goes where it may, while it looks at all of them twice."""
    name = stuck.path.name

    def looked() -> bool:
        return trace.exists() and trace.read_text(errors="replace").count(f'/{name}"') > 1

    with straced.attached(running.child.pid, "-s", "4096", "-e", f"trace={_LOOKING}", to=trace):
        wait_for(looked)
    base = str(running.log.parent)
    may = ("/run/containerd", "/proc/", "/sys/", f"{base}/lib", f"{base}/config.toml")
    gone_to = set(_QUOTED.findall(trace.read_text(errors="replace")))
    others = {path for path in gone_to if not path.startswith(may)}
    assert others <= {"/run", "/proc", base, *map(str, Path(base).parents)}
    assert gone_to > others


@pytest.mark.fault("I18", "a shared directory on a dead filesystem")
@private_mounts
def test_nothing_that_all_bundles_need_delays_health_or_the_end(tmp_path: Path) -> None:
    with ground(tmp_path) as on:
        bundles = [on.dead(f"some-{n}") for n in range(3)]
        places = [Path(place(on).decode()) for what, place in SHARED.items() if what != "work tree"]
        with dead_at(*places), daemon(on) as running:
            for bundle in bundles:
                running.until(judged(on, bundle, "unknown"))
            in_time(running)
        assert [bundle.path.exists() for bundle in bundles] == [True] * 3
        assert on.harm() == []
