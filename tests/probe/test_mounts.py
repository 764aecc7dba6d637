"""The mount table: its lines, its index by bundle, and when it is read again."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.kernel.mounts import Mounted
from reconciler.model.evidence import Mount
from reconciler.model.ids import BundleKey, escape
from reconciler.probe import mounts
from reconciler.probe.mounts import MountTable
from reconciler.probe.points import BundleMounts, Mounts, TreeMounts
from tests.support.mountns import private_mounts, tmpfs, umount

TREE = b"/run/containerd/io.containerd.runtime.v2.task"
OVERLAY = b"overlay overlay rw,lowerdir=/a:/b\\054c,upperdir=/u - x,workdir=/w"


def line(point: bytes, number: int = 7, optional: bytes = b"", tail: bytes = OVERLAY) -> bytes:
    head = b"%d 1 0:5 / %s rw,relatime " % (number, point)
    return head + (optional + b" " if optional else b"") + b"- " + tail + b"\n"


def index(data: bytes, tree: bytes = TREE) -> TreeMounts:
    known = Mounts()
    for number, entry in enumerate(mounts.parse(data)):
        known.add(number, entry.mount)
    found = BundleMounts(known, tree)
    told = found.all()
    assert all(found.of(key) == below for key, below in told.bundles.items())
    return told


def keyed(data: bytes) -> dict[BundleKey, tuple[Mount, ...]]:
    return index(data).bundles


def test_optional_fields_and_commas_are_understood() -> None:
    text = line(b"/x", 41, b"shared:3 master:2 propagate_from:9 unbindable")
    (entry,) = mounts.parse(text)
    assert entry.mount == Mounted(41, b"/x", b"overlay", os.makedev(0, 5), b"/")
    assert (entry.parent_id, entry.peer) == (1, 3)
    assert entry.options.startswith(b"rw,lowerdir=")


def test_names_are_unescaped() -> None:
    (entry,) = mounts.parse(line(rb"/a\040b\011c\012d\134e"))
    assert entry.mount.point == b"/a b\tc\nd\\e"


def test_mounts_are_found_by_bundle_in_their_order() -> None:
    text = (
        line(b"/")
        + line(TREE + b"/default/a/rootfs", 1)
        + line(TREE + b"/default/ab/extra/x", 2)
        + line(TREE + b"/default/a/rootfs", 3)
        + line(TREE + b"/default/a/rootfs/proc", 4)
        + line(TREE + b"/default/b", 5)
        + line(TREE, 6)
        + line(TREE + b"x/default/c/rootfs", 7)
    )
    assert keyed(text) == {
        BundleKey("default", "a"): (
            Mount("rootfs", 1, "overlay"),
            Mount("rootfs", 3, "overlay"),
            Mount("rootfs/proc", 4, "overlay"),
        ),
        BundleKey("default", "ab"): (Mount("extra/x", 2, "overlay"),),
        BundleKey("default", "b"): (Mount("", 5, "overlay"),),
    }


def test_a_mounted_namespace_is_noticed() -> None:
    assert index(line(TREE + b"/default")).namespaces == {"default"}


def test_hostile_names_are_keys() -> None:
    text = line(TREE + rb"/n\040s/new\012line\134/root\011fs")
    assert list(keyed(text)) == [BundleKey("n s", r"new\x0aline\x5c")]


def test_a_tree_with_odd_characters_is_found() -> None:
    tree = b"/odd dir\\x/tree"
    text = line(rb"/odd\040dir\134x/tree/ns/id/rootfs")
    assert list(index(text, tree).bundles) == [BundleKey("ns", "id")]


def test_a_mount_whose_point_was_unlinked_is_not_below_a_bundle() -> None:
    assert keyed(line(TREE + b"/default/a/rootfs//deleted")) == {}


def test_an_option_that_names_the_tree_is_no_mount_in_it() -> None:
    assert keyed(line(b"/mnt", tail=b"overlay " + TREE + b"/d/x/rootfs rw")) == {}


@pytest.mark.parametrize(
    "bad", [b"", b"x", b"1 2 3", b"a b c d e f - g h i", b"- - -", b"1 2 - a b"]
)
def test_damaged_lines_are_passed_over(bad: bytes) -> None:
    entries = list(mounts.parse(line(b"/a") + bad + b"\n" + line(b"/b")))
    assert [entry.mount.point for entry in entries] == [b"/a", b"/b"]


@given(st.binary())
def test_no_table_raises(data: bytes) -> None:
    list(mounts.parse(data))
    index(data)


names = st.binary(min_size=1, max_size=20).filter(lambda name: not set(name) & set(b"/\0"))


def octal(name: bytes) -> bytes:
    return b"".join(b"\\%03o" % c if c in b" \t\n\\" else bytes([c]) for c in name)


@pytest.mark.fault("I23", "odd names")
@given(names, names, st.lists(names, max_size=3))
def test_any_name_finds_its_way_through_the_escapes(
    namespace: bytes, id_: bytes, inner: list[bytes]
) -> None:
    point = b"/".join([TREE, *(octal(name) for name in (namespace, id_, *inner))])
    found = keyed(line(point))
    path = escape(b"/".join(inner))
    assert found == {BundleKey(escape(namespace), escape(id_)): (Mount(path, 7, "overlay"),)}


@given(st.lists(st.sampled_from([TREE + b"/a/b", TREE + b"/a/b/c d", TREE, b"/x"]), max_size=6))
def test_index_and_parse_tell_the_same(points: list[bytes]) -> None:
    text = b"".join(line(octal(point), number) for number, point in enumerate(points, 1))
    found = {mount.mount_id for mounts_ in keyed(text).values() for mount in mounts_}
    told = [entry.mount for entry in mounts.parse(text)]
    below = {one.mount_id for one in told if one.point.startswith(TREE + b"/a/b")}
    assert found == below


def test_the_real_table_is_understood_line_by_line() -> None:
    data = Path("/proc/self/mountinfo").read_bytes()
    assert len(list(mounts.parse(data))) == data.count(b"\n")


@private_mounts
def test_the_table_is_read_again_only_when_it_changed(tmp_path: Path) -> None:
    table = MountTable()
    before = table.read()
    assert table.read() is before
    tmpfs(tmp_path)
    after = table.read()
    assert os.fsencode(tmp_path) in after
    assert table.read() is after
    umount(tmp_path)
    assert os.fsencode(tmp_path) not in table.read()
    table.close()


@private_mounts
def test_a_forked_child_does_not_take_the_signal_away(tmp_path: Path) -> None:
    table = MountTable()
    table.read()
    tmpfs(tmp_path)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if os.fsencode(tmp_path) in table.read() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert os.fsencode(tmp_path) in table.read()
    table.close()


@private_mounts
def test_a_closed_table_reads_anew(tmp_path: Path) -> None:
    table = MountTable()
    table.read()
    table.close()
    tmpfs(tmp_path)
    assert os.fsencode(tmp_path) in table.read()
    table.close()
