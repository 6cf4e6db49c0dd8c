"""Names, folders and locks of clusters."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowfault_cluster import layout, locks
from shadowfault_cluster.errors import ClusterError, UnsupportedPlatformError
from shadowfault_cluster.record import ClusterRecord
from shadowfault_cluster.support import go_architecture, require_support

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "name", ["dev", "a", "0", "a-b", "x" * 40, pytest.param(layout.random_name(), id="random")]
)
def test_names_that_will_do(name: str) -> None:
    assert layout.validate_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "Dev", "a_b", "a.b", "../up", "a/b", "x" * 41, "a\n", "ä"])
def test_names_that_will_not(name: str) -> None:
    with pytest.raises(ClusterError, match="cannot name a cluster"):
        layout.validate_name(name)


@given(st.text(max_size=50))
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    try:
        found = layout.Layout.of(name)
    except ClusterError:
        return
    assert found.directory.parent == layout.clusters_root()
    assert os.path.normpath(found.directory) == str(found.directory)
    assert found.name == name


def test_state_is_in_the_users_cache(cache_home: Path) -> None:
    assert layout.Layout.of("dev").directory == cache_home / "shadowfault" / "clusters" / "dev"


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.lock"
    held = locks.acquire(path)
    assert held is not None
    assert locks.acquire(path) is None
    held.remove_and_release()
    assert not path.exists()
    again = locks.acquire(path)
    assert again is not None
    again.remove_and_release()


def test_nobody_gets_a_lock_on_a_removed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.lock"
    real_flock = fcntl.flock

    def removed_just_before(descriptor: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real_flock)
        path.unlink()  # as its last holder does, between our opening and our locking it
        real_flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", removed_just_before)
    held = locks.acquire(path)
    assert held is not None
    # Were that lock on the removed file, this would be a second holder.
    assert locks.acquire(path) is None
    held.remove_and_release()


def test_a_record_survives_the_file_and_later_fields(tmp_path: Path) -> None:
    record = ClusterRecord(
        name="dev", id="1", network="127.16.0.0/16", apiserver="a", etcd="e", node_name="n", kubelet="k",
        pod_network="p", service_network="s", binaries="b", pids={"etcd": 3},
    )  # fmt: skip
    path = tmp_path / "cluster.json"
    record.write(path)
    path.write_text(path.read_text().replace("{", '{"added_later": 1,', 1))
    assert ClusterRecord.read(path) == record
    assert record.addresses.index == 16


def test_half_a_record_is_no_record(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    path.write_text('{"name": "dev"}')
    with pytest.raises(ValueError, match="missing"):
        ClusterRecord.read(path)


@pytest.mark.parametrize(
    ("machine", "expected"), [("x86_64", "amd64"), ("aarch64", "arm64"), ("arm64", "arm64")]
)
def test_processors_as_go_names_them(machine: str, expected: str) -> None:
    assert go_architecture(machine) == expected


def test_other_processors_are_refused_with_a_way_out() -> None:
    with pytest.raises(UnsupportedPlatformError, match=r"this one is riscv64.*kind"):
        go_architecture("riscv64")


def test_other_systems_are_refused_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(UnsupportedPlatformError, match=r"needs Linux, and this is darwin.*kind"):
        require_support()


def test_a_narrow_loopback_is_refused_with_what_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shadowfault_cluster.support.can_bind", lambda *_: False)
    with pytest.raises(UnsupportedPlatformError, match="ip addr show lo"):
        require_support()
