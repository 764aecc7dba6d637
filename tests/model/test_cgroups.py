"""May a living process in some cgroup be a certain container's? Every case, as a table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.model import cgroups
from reconciler.model.cgroups import (
    CgroupSource,
    NamedCgroup,
    find_hints,
    names_in,
    names_in_all,
    names_of,
)
from reconciler.model.ids import BundleKey

pytestmark = pytest.mark.safety

C1 = BundleKey("default", "c1")
OWN = "/default/c1"

PATHS = {
    "its own": "/default/c1",
    "below its own": "/default/c1/init",
    "its own, seen from inside another": "/docker/abc/default/c1/x",
    "its id elsewhere": "/odd/c1",
    "a scope of its id": "/system.slice/cri-containerd-c1.scope",
    "a systemd path as a mere name": "/system.slice/kubepods-pod7.slice:cri-containerd:c1",
    "a login session": "/user.slice/user-0.slice/session-c1.scope",
    "below something of that name": "/c1/abc",
    "another's": "/default/c11",
}
INSIDE = frozenset(list(PATHS)[:3])
LAST = frozenset(list(PATHS)[3:7])
ANYWHERE = INSIDE | LAST | {"below something of that name"}

RUNTIME, CONFIG, NONE = CgroupSource


def may_hold(named: NamedCgroup, id_: str, path: str) -> bool:
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
    assert {what for what, path in PATHS.items() if may_hold(named, "c1", path)} == counted
    found = find_hints(C1, named, frozenset(PATHS.values()), frozenset())
    assert set(found) == {PATHS[what] for what in counted}


@pytest.mark.fault("an id that is a word of somebody's cgroup path")
def test_a_namespace_with_its_own_name_as_id_is_not_held_up_by_the_others_in_it() -> None:
    key, others = BundleKey("k8s.io", "k8s.io"), frozenset({"/k8s.io/a", "/k8s.io/b"})
    for source, exists in ((RUNTIME, True), (RUNTIME, False), (CONFIG, True), (CONFIG, False)):
        named = NamedCgroup(source, ("/k8s.io/k8s.io",), exists)
        assert find_hints(key, named, others, frozenset()) == ()
    assert find_hints(key, NamedCgroup(), others, frozenset()) == ("/k8s.io/a", "/k8s.io/b")


@pytest.mark.fault("an id that lives in another namespace")
def test_a_namesake_explains_its_own_cgroup_and_no_other() -> None:
    asked = NamedCgroup(CONFIG, (OWN,))
    theirs = frozenset({"/other/c1"})
    serves = frozenset({BundleKey("other", "c1")})
    for named in (asked, NamedCgroup()):
        assert find_hints(C1, named, theirs, frozenset()) == ("/other/c1",)
        assert find_hints(C1, named, theirs, serves) == ()
        assert find_hints(C1, named, frozenset({"/third/c1"}), serves) == ("/third/c1",)
        assert find_hints(C1, named, frozenset({OWN}), frozenset({C1})) == (OWN,)


def test_what_is_in_a_named_cgroup_counts_whosever_shim_lives() -> None:
    shared = NamedCgroup(RUNTIME, ("/other/c1",))
    serves = frozenset({BundleKey("other", "c1")})
    assert find_hints(C1, shared, frozenset({"/other/c1"}), serves) == ("/other/c1",)


IDS = st.sampled_from(["c1", "x-c1", "docker", "default", "a"])
PARTS = st.sampled_from(["c1", "x-c1", "session-c1.scope", "docker", "default", "a", "b"])
SOME = st.lists(PARTS, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(IDS, SOME, SOME)
def test_the_better_the_source_the_less_counts(id_: str, own: str, path: str) -> None:
    """And whatever is inside the named cgroup counts for every one of them."""
    rows = [
        NamedCgroup(RUNTIME, (own,)),
        NamedCgroup(CONFIG, (own,), exists=True),
        NamedCgroup(CONFIG, (own,)),
    ]
    counts = [may_hold(named, id_, path) for named in rows]
    assert counts == sorted(counts)
    if (path + "/").startswith(own + "/"):
        assert all(counts)
    if counts[2] and not rows[2].holds(path):
        assert may_hold(NamedCgroup(), id_, path)


ODD = st.sampled_from(["c1", "x-c1.scope", "s.slice:cri:c1", "s:x.scope", "a", ".scope", ":", ""])
PILE = st.lists(st.lists(ODD, max_size=4).map(lambda parts: "/" + "/".join(parts)), max_size=6)


@given(IDS, PILE)
def test_the_index_of_a_pass_finds_what_a_look_at_each_path_does(
    id_: str, paths: list[str]
) -> None:
    names = {name for path in paths for name in names_of(path)}
    assert names_in_all(paths) - {""} == names - {""}
    key = BundleKey("default", id_)
    for named in (NamedCgroup(), NamedCgroup(CONFIG, (OWN,)), NamedCgroup(RUNTIME, (OWN,))):
        wanted = {p for p in paths if id_ in names_of(p) and may_hold(named, id_, p)}
        assert find_hints(key, named, frozenset(paths), frozenset()) == tuple(sorted(wanted))


def test_a_longer_name_than_an_ids_is_none() -> None:
    names = names_in("-".join(["ab"] * 80) + ".scope")
    assert max(map(len, names)) <= 76
    assert "ab-ab" in names
    assert names_in("x" * 77) == ()


@pytest.mark.fault("a cgroup made by another driver than config.json asks")
def test_what_follows_the_last_colon_of_a_name_may_be_an_id() -> None:
    """No id holds a colon, and a cgroup's name of the kernel's own may."""
    assert set(names_in("x.slice:cri-containerd:c1")) == {"x.slice:cri-containerd:c1", "c1"}
    assert set(names_in("c1:")) == {"c1:"}
    assert "x.scope" in names_in("a:x.scope")
    long = "p" * 70 + ".slice:cri-containerd:" + "c" * 64
    assert names_in(long) == ("c" * 64,)
    key = BundleKey("k8s.io", "c" * 64)
    asked = NamedCgroup(CONFIG, ("/p.slice/cri-containerd-c.scope",))
    for named in (asked, NamedCgroup()):
        assert find_hints(key, named, frozenset({"/" + long}), frozenset()) == ("/" + long,)


@given(st.lists(st.sampled_from(["a", "bc", ""]), max_size=60))
def test_every_cut_of_a_scope_is_tried(parts: list[str]) -> None:
    stem = "-".join(parts)
    cuts = ["-".join(parts[n:]) for n in range(len(parts))] or [""]
    wanted = {name for name in (stem + ".scope", *cuts) if len(name) <= 76}
    assert set(names_in(stem + ".scope")) == wanted


@given(st.lists(PILE, max_size=6))
def test_what_an_index_held_before_does_not_matter(passes: list[list[str]]) -> None:
    index = cgroups._Index()
    for paths in map(frozenset, passes):
        assert index.of(paths) == cgroups._Index().of(paths)


def test_a_pass_like_the_one_before_has_only_what_changed_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index, split = cgroups._Index(), list[str]()
    names = cgroups._names

    def counted(path: str) -> frozenset[str]:
        split.append(path)
        return names(path)

    many = frozenset(f"/k8s.io/c{number}" for number in range(1_000))
    index.of(many)
    monkeypatch.setattr(cgroups, "_names", counted)
    for number in range(500):  # and one that has grown and shrunk is made anew
        index.of(many - {f"/k8s.io/c{number}"})
    assert len(split) <= 2 * 500 + len(many)
    index.of(frozenset({OWN}))
    assert index._by_name.keys() == {"default", "c1"}
