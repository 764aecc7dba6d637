"""An inventory of more than it can name: the oldest are named, of each kind some."""

import os
from pathlib import Path

import pytest

from reconciler.model.debris import DebrisKind
from reconciler.worker import context, inventory
from tests.decide.debris_world import places
from tests.support.mountns import private_mounts
from tests.worker.test_inventory import NOBODY, debris, found, left, names

STATE = DebrisKind.RUNC_STATE
CGROUP, SOCKET = DebrisKind.CGROUP, DebrisKind.SHIM_SOCKET


def test_kinds_take_turns() -> None:
    one, other = (list(places(count, kind)) for count, kind in ((5, CGROUP), (2, SOCKET)))
    given = list(inventory.by_turns([iter(one), iter(other), iter([])]))
    assert given == [one[0], other[0], one[1], other[1], *one[2:]]


@private_mounts
def test_where_there_are_too_many_the_oldest_of_each_kind_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "scan", lambda **_: NOBODY)
    with left(tmp_path) as (made, worker, _):
        fifos = Path(os.fsdecode(made.layout.fifos))
        for number in range(5):
            (fifos / str(900 + number)).mkdir()
            os.utime(fifos / str(900 + number), (4e9, 4e9 - number))
        whole = found(worker)
        assert not whole.more
        most = len(whole.places) - 3
        monkeypatch.setattr(inventory, "MOST", most)
        some = found(worker)
        assert (some.more, len(some.places)) == (True, most)
        assert debris(some).keys() == debris(whole).keys()
        gone = {os.path.basename(path) for path in names(whole) - names(some)}
        assert gone == {"900", "901", "902"}, "the youngest"


@private_mounts
def test_what_nobody_can_tell_about_hides_nothing_that_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "scan", lambda **_: NOBODY)
    monkeypatch.setattr(inventory, "MOST_UNSURE", 5)
    with left(tmp_path) as (_, worker, bundle):
        for number in range(8):
            state = bundle.runc_state.with_name(f"a{number}")
            state.mkdir()
            (state / "state.json").touch()
            os.utime(state, (1e9, 1e9))
        some = found(worker)
        assert some.more
        states = [one for one in some.places if one.key.kind is STATE]
        assert len(states) == 5 + 1
        assert os.fspath(bundle.runc_state) in {one.key.path for one in states}
        assert [one.key.path for one in debris(some)[STATE]] == [os.fspath(bundle.runc_state)]
