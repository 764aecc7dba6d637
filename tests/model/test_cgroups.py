"""May a living process in some cgroup be a certain container's? Every case, as a table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.model.cgroups import CgroupSource, NamedCgroup, find_hints, names_in
from reconciler.model.ids import BundleKey

pytestmark = pytest.mark.safety

C1 = BundleKey(b"default", b"c1")
OWN = b"/default/c1"

PATHS = {
    "its own": b"/default/c1",
    "below its own": b"/default/c1/init",
    "its own, seen from inside another": b"/docker/abc/default/c1/x",
    "its id elsewhere": b"/odd/c1",
    "a scope of its id": b"/system.slice/cri-containerd-c1.scope",
    "a systemd path as a mere name": b"/system.slice/kubepods-pod7.slice:cri-containerd:c1",
    "a login session": b"/user.slice/user-0.slice/session-c1.scope",
    "below something of that name": b"/c1/abc",
    "another's": b"/default/c11",
}
INSIDE = frozenset(list(PATHS)[:3])
LAST = frozenset(list(PATHS)[3:7])
ANYWHERE = INSIDE | LAST | {"below something of that name"}

RUNTIME, CONFIG, NONE = CgroupSource


def may_hold(named: NamedCgroup, id_: bytes, path: bytes) -> bool:
    return named.holds(path) or named.may_be_called(id_, path)


@pytest.mark.fault("an id that is a word of somebody's cgroup path")
@pytest.mark.parametrize(
    ("named", "counted"),
    [
        (NamedCgroup(RUNTIME, (OWN,), exists=True), INSIDE),
        (NamedCgroup(RUNTIME, (OWN,), exists=False), INSIDE),
        (NamedCgroup(CONFIG, (OWN,), exists=True), INSIDE),
        (NamedCgroup(CONFIG, (OWN,), exists=False), INSIDE | LAST),
        (NamedCgroup(NONE, (), exists=True), ANYWHERE),
        (NamedCgroup(NONE, (), exists=False), ANYWHERE),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, NamedCgroup) else "",
)
def test_each_case(named: NamedCgroup, counted: frozenset[str]) -> None:
    assert {what for what, path in PATHS.items() if may_hold(named, b"c1", path)} == counted
    found = find_hints(C1, named, frozenset(PATHS.values()), frozenset())
    assert set(found) == {PATHS[what] for what in counted}


@pytest.mark.fault("an id that is a word of somebody's cgroup path")
def test_a_namespace_with_its_own_name_as_id_is_not_held_up_by_the_others_in_it() -> None:
    key, others = BundleKey(b"k8s.io", b"k8s.io"), frozenset({b"/k8s.io/a", b"/k8s.io/b"})
    for source, exists in ((RUNTIME, True), (RUNTIME, False), (CONFIG, True), (CONFIG, False)):
        named = NamedCgroup(source, (b"/k8s.io/k8s.io",), exists)
        assert find_hints(key, named, others, frozenset()) == ()
    assert find_hints(key, NamedCgroup(), others, frozenset()) == (b"/k8s.io/a", b"/k8s.io/b")


@pytest.mark.fault("an id that lives in another namespace")
def test_a_namesake_explains_its_own_cgroup_and_no_other() -> None:
    asked = NamedCgroup(CONFIG, (OWN,))
    theirs = frozenset({b"/other/c1"})
    serves = frozenset({BundleKey(b"other", b"c1")})
    for named in (asked, NamedCgroup()):
        assert find_hints(C1, named, theirs, frozenset()) == (b"/other/c1",)
        assert find_hints(C1, named, theirs, serves) == ()
        assert find_hints(C1, named, frozenset({b"/third/c1"}), serves) == (b"/third/c1",)
        assert find_hints(C1, named, frozenset({OWN}), frozenset({C1})) == (OWN,)


def test_what_is_in_a_named_cgroup_counts_whosever_shim_lives() -> None:
    shared = NamedCgroup(RUNTIME, (b"/other/c1",))
    serves = frozenset({BundleKey(b"other", b"c1")})
    assert find_hints(C1, shared, frozenset({b"/other/c1"}), serves) == (b"/other/c1",)


IDS = st.sampled_from([b"c1", b"x-c1", b"docker", b"default", b"a"])
PARTS = st.sampled_from([b"c1", b"x-c1", b"session-c1.scope", b"docker", b"default", b"a", b"b"])
SOME = st.lists(PARTS, min_size=1, max_size=4).map(lambda parts: b"/" + b"/".join(parts))


@given(IDS, SOME, SOME)
def test_the_better_the_source_the_less_counts(id_: bytes, own: bytes, path: bytes) -> None:
    """And whatever is inside the named cgroup counts for every one of them."""
    rows = [
        NamedCgroup(RUNTIME, (own,)),
        NamedCgroup(CONFIG, (own,), exists=True),
        NamedCgroup(CONFIG, (own,)),
    ]
    counts = [may_hold(named, id_, path) for named in rows]
    assert counts == sorted(counts)
    if (path + b"/").startswith(own + b"/"):
        assert all(counts)
    if counts[2] and not rows[2].holds(path):
        assert may_hold(NamedCgroup(), id_, path)


def test_a_longer_name_than_an_ids_is_none() -> None:
    names = names_in(b"-".join([b"ab"] * 80) + b".scope")
    assert max(map(len, names)) <= 76
    assert b"ab-ab" in names
    assert names_in(b"x" * 77) == ()


@pytest.mark.fault("a cgroup made by another driver than config.json asks")
def test_what_follows_the_last_colon_of_a_name_may_be_an_id() -> None:
    """No id holds a colon, and a cgroup's name of the kernel's own may."""
    assert set(names_in(b"x.slice:cri-containerd:c1")) == {b"x.slice:cri-containerd:c1", b"c1"}
    assert set(names_in(b"c1:")) == {b"c1:"}
    assert b"x.scope" in names_in(b"a:x.scope")
    long = b"p" * 70 + b".slice:cri-containerd:" + b"c" * 64
    assert names_in(long) == (b"c" * 64,)
    key = BundleKey(b"k8s.io", b"c" * 64)
    asked = NamedCgroup(CONFIG, (b"/p.slice/cri-containerd-c.scope",))
    for named in (asked, NamedCgroup()):
        assert find_hints(key, named, frozenset({b"/" + long}), frozenset()) == (b"/" + long,)


@given(st.lists(st.sampled_from([b"a", b"bc", b""]), max_size=60))
def test_every_cut_of_a_scope_is_tried(parts: list[bytes]) -> None:
    stem = b"-".join(parts)
    cuts = [b"-".join(parts[n:]) for n in range(len(parts))] or [b""]
    wanted = {name for name in (stem + b".scope", *cuts) if len(name) <= 76}
    assert set(names_in(stem + b".scope")) == wanted
