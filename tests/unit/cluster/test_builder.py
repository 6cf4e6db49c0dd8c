"""Building into the cache: all or nothing, whatever happens on the way."""

from __future__ import annotations

import io
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from shadowfault_cluster import assets, build_errors, builder, cache
from shadowfault_cluster.errors import ControlPlaneUnavailableError
from shadowfault_cluster.progress import BarReporter, LineReporter

if TYPE_CHECKING:
    from collections.abc import Callable

    from shadowfault_testing.fake_go import FakeGo

pytestmark = pytest.mark.usefixtures("roomy_disk", "cache_home")


@pytest.fixture
def roomy_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not depend on how full the machine is."""
    monkeypatch.setattr(build_errors, "_NEEDED_BYTES", 0)


def _reporter(said: list[str] | None = None) -> LineReporter:
    return LineReporter((said if said is not None else []).append)


def _left(cache_home: Path) -> list[str]:
    """Whatever a build left in the cache, but for its log."""
    root = cache_home / "shadowfault" / "controlplane"
    return sorted(path.name for path in root.iterdir() if path.name != "build.log")


@pytest.mark.usefixtures("fake_go")
def test_a_build_leaves_every_binary_and_nothing_else(cache_home: Path) -> None:
    said: list[str] = []
    directory = assets.ensure(_reporter(said))
    assert sorted(path.name for path in directory.iterdir()) == sorted(assets.BINARIES)
    assert _left(cache_home) == [directory.name]
    assert said[-1] == f"the control plane is built: {directory}"


def test_a_second_call_builds_nothing(fake_go: FakeGo) -> None:
    assets.ensure(_reporter())
    builds = fake_go.calls("build")
    assets.ensure(_reporter())
    assert len(builds) == len(assets.BINARIES)
    assert fake_go.calls("build") == builds


def test_a_failed_build_leaves_no_cache_and_tells_the_log_and_what_to_do(
    fake_go: FakeGo, cache_home: Path
) -> None:
    fake_go.behave(on_build='case "$out" in *apiserver) echo "x: no space left on device" >&2; exit 1;; esac')
    with pytest.raises(ControlPlaneUnavailableError) as caught:
        assets.ensure(_reporter())
    message = str(caught.value)
    assert "building kube-apiserver failed with status 1" in message
    assert "The disk is full" in message
    assert "x: no space left on device" in message
    assert str(cache_home / "shadowfault" / "controlplane" / "build.log") in message
    assert _left(cache_home) == []


def test_after_a_failed_build_the_next_one_starts_afresh(fake_go: FakeGo) -> None:
    fake_go.behave(on_build="exit 1")
    with pytest.raises(ControlPlaneUnavailableError):
        assets.ensure(_reporter())
    fake_go.behave()
    assert assets.missing(assets.ensure(_reporter())) == []


@pytest.mark.parametrize(
    ("how", "compiler_is"),
    [
        # Go's own children end with it when we can still see to it.
        (signal.SIGINT, "sleep 600 & echo $! >{0}.new; mv {0}.new {0}; wait"),
        # When we cannot, Go itself does: a compiler of its lasts seconds.
        (signal.SIGKILL, "echo $$ >{0}.new; mv {0}.new {0}; exec sleep 600"),
    ],
)
def test_an_interrupted_build_leaves_no_cache_and_no_process(
    fake_go: FakeGo,
    cache_home: Path,
    tmp_path: Path,
    eventually: Callable[[Callable[[], bool]], None],
    how: signal.Signals,
    compiler_is: str,
) -> None:
    pid_file = tmp_path / "compiler.pid"
    fake_go.behave(on_build=compiler_is.format(pid_file))
    # What a shell starts in the background ignores SIGINT: make sure this does not.
    run = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from shadowfault_cluster import build_errors, controlplane_build;"
        "build_errors._NEEDED_BYTES = 0; sys.exit(controlplane_build.main())"
    )
    builder_process = subprocess.Popen([sys.executable, "-c", run], stderr=subprocess.PIPE, text=True)
    with builder_process:
        eventually(pid_file.exists)
        compiler = int(pid_file.read_text())
        builder_process.send_signal(how)
        _, errors = builder_process.communicate(timeout=20)
    eventually(lambda: not _alive(compiler))
    assert not cache.directory().exists()
    if how == signal.SIGINT:
        assert builder_process.returncode == 130
        assert "nothing is left half-built" in errors
        assert _left(cache_home) == []
    # What SIGKILL leaves is a folder that nobody mistakes for a build, and the next build removes it.
    fake_go.behave()
    assert _left(cache_home) != [cache.directory().name]
    assets.ensure(_reporter())
    assert _left(cache_home) == [cache.directory().name]


def _alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_two_builders_wait_for_one_another(
    fake_go: FakeGo, tmp_path: Path, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    go_on = tmp_path / "go-on"
    write = 'printf "#!/bin/sh\\n" >"$out"; chmod +x "$out"'
    fake_go.behave(on_build=f"while [ ! -e {go_on} ]; do sleep 0.02; done; {write}")
    said: list[list[str]] = [[], []]
    directories: list[Path] = []
    threads = [
        threading.Thread(target=lambda lines=lines: directories.append(assets.ensure(_reporter(lines))))
        for lines in said
    ]
    for thread in threads:
        thread.start()
    eventually(lambda: any("another process is building" in line for lines in said for line in lines))
    go_on.touch()
    for thread in threads:
        thread.join(20)
    assert directories == [cache.directory()] * 2
    assert len(fake_go.calls("build")) == len(assets.BINARIES)


def test_the_build_is_pinned_by_its_environment(fake_go: FakeGo, tmp_path: Path) -> None:
    seen = tmp_path / "env"
    fake_go.behave(on_build=f'env >{seen}; pwd >>{seen}; printf "#!/bin/sh\\n" >"$out"; chmod +x "$out"')
    assets.ensure(_reporter())
    lines = set(seen.read_text().splitlines())
    assert {"CGO_ENABLED=0", "GOTOOLCHAIN=local", "GOWORK=off"} <= lines
    assert "GOFLAGS=-mod=readonly -trimpath -buildvcs=false" in lines
    # No ~/go for somebody who has none.
    assert f"GOMODCACHE={builder.own_go_caches() / 'mod'}" in lines


def test_a_full_disk_is_noticed_before_the_work(fake_go: FakeGo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_errors, "_NEEDED_BYTES", shutil.disk_usage("/").total * 1000)
    with pytest.raises(ControlPlaneUnavailableError, match=r"GB are free. Free some, or set XDG_CACHE_HOME"):
        assets.ensure(_reporter())
    assert fake_go.calls("build") == []


def test_the_version_comes_from_go_mod() -> None:
    flags = builder.linker_flags("require (\n\tk8s.io/kubernetes v1.99.7\n)\n").split()
    assert "-X=k8s.io/component-base/version.gitVersion=v1.99.7" in flags
    assert "-X=k8s.io/component-base/version.gitMinor=99" in flags
    assert builder.linker_flags((cache.module_directory() / "go.mod").read_text())


def test_what_is_built_is_what_go_mod_names_as_tools() -> None:
    go_mod = (cache.module_directory() / "go.mod").read_text()
    tools = go_mod.partition("tool (")[2].partition(")")[0].split()
    assert sorted(builder.PACKAGES.values()) == sorted(tools)


def test_the_cache_key_changes_with_every_input(tmp_path: Path) -> None:
    keys = set()
    for mod, total, platform in (
        ("a", "b", "l"),
        ("a2", "b", "l"),
        ("a", "b2", "l"),
        ("a", "b", "l2"),
        ("ab", "", "l"),
    ):
        (tmp_path / "go.mod").write_text(mod)
        (tmp_path / "go.sum").write_text(total)
        keys.add(cache.key(tmp_path, platform))
    assert len(keys) == 5


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("go: x: Get https://p/: dial tcp: lookup p: no such host", "Check the network"),
        ("write /x: no space left on device; dial tcp", "The disk is full"),
        ("verifying x: checksum mismatch\nSECURITY ERROR", "go.sum"),
        ("k8s.io/x: /go/compile: signal: killed", "GOMAXPROCS=1"),
        ("something new", "KUBEBUILDER_ASSETS"),
    ],
)
def test_each_cause_has_its_advice(log: str, expected: str) -> None:
    assert expected in build_errors.advice(log)


class TestAssetsOfTheUser:
    """KUBEBUILDER_ASSETS."""

    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Give a folder with every binary, named by KUBEBUILDER_ASSETS."""
        folder = tmp_path / "assets"
        folder.mkdir()
        for name in assets.BINARIES:
            (folder / name).touch(mode=0o755)
        monkeypatch.setenv("KUBEBUILDER_ASSETS", str(folder))
        return folder

    def test_are_used_and_nothing_is_built(self, folder: Path, fake_go: FakeGo, cache_home: Path) -> None:
        assert assets.ensure(_reporter()) == folder
        assert fake_go.calls("") == []
        assert not cache_home.exists()

    def test_without_the_controller_manager_are_envtests(self, folder: Path) -> None:
        (folder / "kube-controller-manager").unlink()
        with pytest.raises(ControlPlaneUnavailableError) as caught:
            assets.ensure(_reporter())
        assert "lacks kube-controller-manager (" in str(caught.value)
        assert "setup-envtest does not ship" in str(caught.value)
        assert "unset KUBEBUILDER_ASSETS" in str(caught.value)

    def test_that_are_not_executable_are_named(self, folder: Path) -> None:
        (folder / "etcd").chmod(0o644)
        with pytest.raises(ControlPlaneUnavailableError, match="lacks etcd "):
            assets.ensure(_reporter())


@pytest.mark.usefixtures("fake_go")
def test_a_cache_that_lost_a_binary_says_what_to_do() -> None:
    (assets.ensure(_reporter()) / "kubectl").unlink()
    with pytest.raises(ControlPlaneUnavailableError, match=r"kubectl went missing.*rm -r"):
        assets.ensure(_reporter())


def test_lines_come_at_most_every_few_seconds() -> None:
    now = 100.0
    said: list[str] = []
    reporter = LineReporter(said.append, clock=lambda: now)
    reporter.step("building etcd", 0, 10)
    reporter.step("building etcd", 1, 10)
    now += 65
    reporter.step("building etcd", 2, 10)
    reporter.step("building kubectl", 2, None)
    assert said == [
        "building etcd: 0/10 (0m00s)",
        "building etcd: 2/10 (1m05s)",
        "building kubectl: 2 (1m05s)",
    ]


@pytest.mark.usefixtures("fake_go")
def test_a_terminal_shows_a_bar_and_what_is_said_stays() -> None:
    output = io.StringIO()
    with BarReporter(Console(file=output, force_terminal=True, width=200)) as bar:
        directory = assets.ensure(bar)
    shown = output.getvalue()
    assert "building kube-controller-manager" in shown
    assert f"the control plane is built: {directory}" in shown
