"""What every test shares: one event loop, no taste in terminals, a say in what may be skipped.

A test marked `containerd` needs root and a real containerd. Where either is missing it is skipped
with the reason, which is right on a laptop and wrong in continuous integration: with
RECONCILER_REQUIRE_E2E=1 a skipped `containerd` or `kernel` test, or none collected at all, fails
the run.
"""

import os
import shutil
from collections.abc import Generator

import hypothesis
import pytest

from reconciler.supervision import Supervisor

_REQUIRED = os.environ.get("RECONCILER_REQUIRE_E2E", "0") not in {"", "0"}
_NEVER_SKIPPED = ("containerd", "kernel")
_PROGRAMS = ("containerd", "containerd-shim-runc-v2", "ctr", "runc")
_TASTES = (
    "COLUMNS",
    "FORCE_COLOR",
    "LINES",
    "NO_COLOR",
    "TERM",
    "TTY_COMPATIBLE",
    "TTY_INTERACTIVE",
)

# What is drawn depends on these: to rich, TERM=dumb is 80 columns wide whatever it was told.
for _taste in _TASTES:
    os.environ.pop(_taste, None)

# A change must not turn red by what another run happened to draw, nor green: each run of the tests
# draws the same examples. Others, and ten times as many, are drawn by `make explore`; what it finds
# is mended and becomes an `@example`. A shared machine is slow for reasons that are not the code's:
# nothing here fails by time alone, and the timeout of pytest still holds.
_COMMON = hypothesis.settings(
    deadline=None, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("here", _COMMON, derandomize=True, database=None)
hypothesis.settings.register_profile("explore", _COMMON, max_examples=1000)
hypothesis.settings.load_profile("here")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio, the loop the program runs on (grpclib knows no other)."""
    return "asyncio"


def _why_no_containerd() -> str | None:
    if os.geteuid() != 0:
        return "needs root to run a containerd of its own"
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Note which faults a test shows, for reports; skip what needs a containerd where none is."""
    for item in items:
        names = {name for mark in item.iter_markers("fault") for name in mark.args}
        item.user_properties += [("fault", name) for name in sorted(names)]
    reason = _why_no_containerd()
    if reason is None:
        return
    for item in items:
        if item.get_closest_marker("containerd"):
            item.add_marker(pytest.mark.skip(reason=reason))


# What is the machine's own, and paths that tests name because nothing is there.
_NOT_OURS = ("/run/containerd-reconciler", "/etc/containerd-reconciler", "/nonexistent", "/nowhere")


def _not_ours() -> dict[str, list[str] | None]:
    return {one: os.listdir(one) if os.path.isdir(one) else None for one in _NOT_OURS}


_BEFORE = _not_ours()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that has touched what is the machine's own."""
    after = _not_ours()
    if touched := [one for one in _NOT_OURS if after[one] != _BEFORE[one]]:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        names = ", ".join(touched)
        print(f"\na test has touched the machine's own {names}")  # noqa: T201 - for who runs them


_FAILED: list[tuple[str, Exception]] = []
_FAIL = Supervisor.failed


def _failed(supervisor: Supervisor, where: str, error: Exception) -> None:
    _FAILED.append((where, error))
    _FAIL(supervisor, where, error)


Supervisor.failed = _failed  # type: ignore[assignment]  # what is survived must still be seen


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test in which a part of ours failed and was survived, unless it made it fail."""
    _FAILED.clear()
    result = yield
    if _FAILED and not item.get_closest_marker("breaks_parts"):
        where, error = _FAILED[0]
        raise AssertionError(f"a part has failed: {where}") from error
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the skip of a test that must run into a failure, where it must run."""
    report = yield
    must_run = _REQUIRED and any(item.get_closest_marker(name) for name in _NEVER_SKIPPED)
    if must_run and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"RECONCILER_REQUIRE_E2E is set, and this was skipped: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Do the same for a module that skips itself whole, whose marks nobody has read."""
    report = yield
    if _REQUIRED and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"RECONCILER_REQUIRE_E2E is set, and this was skipped: {report.longrepr}"
    return report


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse a full run that holds no end-to-end test: silence is not success."""
    whole = session.config.args == session.config.getini("testpaths")
    if not (_REQUIRED and whole):
        return
    if not any(item.get_closest_marker("containerd") for item in session.items):
        raise pytest.UsageError("RECONCILER_REQUIRE_E2E is set, and no end-to-end test was found")
