"""Instances: a name says where its containerd is, and no two daemons are in each other's way."""

from pathlib import Path

import pytest

from reconciler.model.layout import TASKS
from reconciler.settings.instances import (
    KNOWN,
    check_instance,
    instances_here,
    keys_of,
    places_of,
)
from reconciler.settings.load import Flag, Loaded, load
from reconciler.settings.show import shown

NAMES = (*KNOWN, "second", "build-7")


def load_instance(name: str, *flags: Flag) -> Loaded:
    return load(environ={}, flags=flags, instance=name)


@pytest.mark.parametrize("name", KNOWN)
def test_a_product_needs_no_file_to_be_found(name: str) -> None:
    layout, its = load_instance(name).layout, KNOWN[name]
    assert layout.state.decode() == its["state"]
    assert layout.root.decode() == its["root"]
    assert layout.address.decode() == its["address"]


def test_no_two_share_a_socket_a_port_or_a_file() -> None:
    usual = load(environ={}).settings.http
    https = [usual, *(load_instance(name).settings.http for name in NAMES)]
    for values in ([http.socket for http in https], [http.listen for http in https]):
        assert len(set(values)) == len(NAMES) + 1
    assert len({places_of(name) for name in NAMES}) == len(NAMES)


def test_what_a_name_says_is_shown_with_its_origin() -> None:
    lines = {line.key: line for line in shown(load_instance("k0s"))}
    assert lines["containerd.address"].origin == "instance k0s"
    assert lines["http.socket"].origin == "instance k0s"


def test_files_environment_and_options_win_over_a_name(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[containerd]\nroot = "/srv/containerd"\n[http]\nlisten = ""\n')
    loaded = load(str(file), environ={}, instance="k3s")
    assert loaded.layout.root == b"/srv/containerd"
    assert loaded.layout.state == KNOWN["k3s"]["state"].encode()
    assert loaded.settings.http.listen == ""


def test_a_state_directory_said_later_takes_the_socket_along() -> None:
    """The socket that the name knows is another containerd's then."""
    moved = load_instance("k0s", Flag("--state", "containerd.state", "/srv/run/containerd"))
    assert moved.layout.address == b"/srv/run/containerd/containerd.sock"


def test_a_name_becomes_no_other_path() -> None:
    for name in ("", ".", "..", "../etc", "a/b", "conf.d", "A", "-x", "x-", "a" * 33, "é", "a\n"):
        with pytest.raises(ValueError, match="instance"):
            check_instance(name)
    for name in NAMES:
        assert check_instance(name) == name


def test_products_are_known_by_their_trees(tmp_path: Path) -> None:
    assert instances_here(str(tmp_path)) == ()
    for path in (KNOWN["k3s"]["state"], KNOWN["rke2"]["root"], KNOWN["docker"]["root"]):
        (tmp_path / path.lstrip("/")).mkdir(parents=True)
    assert instances_here(str(tmp_path)) == ()  # none of them has run a task
    (tmp_path / KNOWN["k3s"]["state"].lstrip("/") / TASKS.decode()).mkdir()
    assert instances_here(str(tmp_path)) == ("rke2",)  # k3s keeps its files elsewhere


def test_every_address_is_one_that_a_name_says() -> None:
    assert {"containerd.address", "containerd.root", "containerd.state"} < keys_of("k3s").keys()
    assert keys_of("second").keys() == {"http.socket", "http.listen"}
