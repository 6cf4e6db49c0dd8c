"""Building etcd, kube-apiserver, kube-controller-manager and kubectl from the pinned module.

The result appears in the cache in one step (a rename) or not at all.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from shadowfault_cluster import build_errors, cache, locks, subcommands, toolchain
from shadowfault_cluster.components import APISERVER, CONTROLLER_MANAGER, ETCD, KUBECTL
from shadowfault_cluster.errors import ControlPlaneUnavailableError

if TYPE_CHECKING:
    from typing import BinaryIO

    from shadowfault_cluster.progress import Reporter
    from shadowfault_cluster.toolchain import Toolchain

# In this order the first packages, which all share, are paid for by the smallest tool.
PACKAGES = {
    ETCD: "go.etcd.io/etcd/server/v3",
    KUBECTL: "k8s.io/kubernetes/cmd/kubectl",
    APISERVER: "k8s.io/kubernetes/cmd/kube-apiserver",
    CONTROLLER_MANAGER: "k8s.io/kubernetes/cmd/kube-controller-manager",
}


def linker_flags(go_mod: str) -> str:
    """Strip the binaries and give them the version they would report as a release.

    -X reaches the linker only, so that no package is compiled anew for it. etcd
    has its version in its source.
    """
    match = re.search(r"^\s*k8s\.io/kubernetes (v(\d+)\.(\d+)\.\S+)", go_mod, re.MULTILINE)
    if match is None:
        raise ControlPlaneUnavailableError(
            "go.mod requires no version of k8s.io/kubernetes; reinstall shadowfault"
        )
    version, major, minor = match.groups()
    settings = {
        "gitVersion": version,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": "",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(
        [
            "-s",
            "-w",
            *(f"-X={package}.{name}={value}" for package in packages for name, value in settings.items()),
        ]
    )


def build(target: Path, reporter: Reporter) -> None:
    """Build every binary into `target`, unless another process has done so while we waited for it.

    Raises ControlPlaneUnavailableError; then, and when interrupted, `target` does not exist.
    """
    lock_path = target.with_name(f"{target.name}.lock")
    lock = locks.acquire(lock_path)
    if lock is None:
        reporter.say("another process is building the control plane; waiting for it")
        lock = locks.acquire(lock_path, wait=True)
    try:
        if target.exists():
            return
        for leftover in target.parent.glob(f".{target.name}.*"):  # of a build that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        build_errors.require_disk_space(target.parent)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            _build_in(staging, target, reporter)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    finally:
        if lock is not None:
            lock.remove_and_release()


def _build_in(staging: Path, target: Path, reporter: Reporter) -> None:
    go = toolchain.find(cache.module_directory(), reporter.say)
    reporter.say(f"building the control plane with {go.version} ({go.go}): some 8 minutes on 2 cores, once")
    module = staging / "module"
    module.mkdir()
    # A copy, so that neither a go.work nor a read-only site-packages can matter, nor an edit while we build.
    for name in ("go.mod", "go.sum"):
        shutil.copyfile(cache.module_directory() / name, module / name)
    binaries = staging / "bin"
    binaries.mkdir()
    log_path = target.with_name("build.log")
    with log_path.open("wb") as log:
        job = _Build(go, module, binaries, _environment(go, staging), log, reporter)
        try:
            job.run()
        except _FailedCommandError as error:
            log.flush()
            raise build_errors.explain(error.what, log_path) from None
    binaries.rename(target)
    log_path.unlink()
    if go.ours:
        _remove_own_go_caches()
    reporter.say(f"the control plane is built: {target}")


class _FailedCommandError(Exception):
    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


@dataclass
class _Build:
    """One build: which packages there are, and which of them are done."""

    toolchain: Toolchain
    module: Path
    binaries: Path
    environment: dict[str, str]
    log: BinaryIO
    reporter: Reporter
    _dependencies: dict[str, set[str]] = field(default_factory=dict)
    _done: set[str] = field(default_factory=set)

    def run(self) -> None:
        self._download()
        flags = linker_flags((self.module / "go.mod").read_text(encoding="utf-8"))
        for tool, package in PACKAGES.items():
            self._compile(tool, package, flags)

    def _download(self) -> None:
        """Fetch the modules that are needed, and learn which packages they hold."""
        downloads = 0

        def on_line(line: str) -> None:
            nonlocal downloads
            if line.startswith("go: downloading"):
                downloads += 1
                self.reporter.step("downloading Go modules", downloads, None)
            elif line and " " not in line:
                self._dependencies[package].add(line)

        self.reporter.step("downloading Go modules", 0, None)
        for package in PACKAGES.values():
            self._dependencies[package] = set()
            self._go("listing the packages", "list", "-deps", package, on_line=on_line)

    def _compile(self, tool: str, package: str, flags: str) -> None:
        everything: set[str] = set().union(*self._dependencies.values())

        def on_line(line: str) -> None:
            if line in everything:  # `go build -v` names each package that it compiles
                self._done.add(line)
            self.reporter.step(f"building {tool}", len(self._done), len(everything))

        on_line("")
        self._go(
            f"building {tool}", "build", "-v", "-o", str(self.binaries / tool), "-ldflags", flags, package,
            on_line=on_line,
        )  # fmt: skip
        self._done |= self._dependencies[package]  # those that Go's own cache had

    def _go(self, what: str, *arguments: str, on_line: subcommands.OnLine) -> None:
        status = subcommands.run(
            [str(self.toolchain.go), *arguments],
            environment=self.environment,
            directory=self.module,
            log=self.log,
            on_line=on_line,
        )
        if status != 0:
            raise _FailedCommandError(f"{what} failed with status {status}")


def _environment(go: Toolchain, staging: Path) -> dict[str, str]:
    """Our environment, with what decides about the build laid down and nothing written outside of caches."""
    settings = {
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false",
        "GOWORK": "off",
        "GOOS": "linux",
        # Go keeps usage counters in the configuration folder; its settings are still read from there.
        "GOENV": _go_env(go, "GOENV"),
        "XDG_CONFIG_HOME": str(staging / "config"),
    }
    own = own_go_caches()
    if go.ours:
        settings["GOCACHE"] = str(own / "build")
    modules = Path(_go_env(go, "GOMODCACHE"))
    if go.ours or not modules.is_dir():  # not someone who works with Go: no ~/go for them
        settings |= {"GOMODCACHE": str(own / "mod"), "GOPATH": str(own / "path")}
    return {name: value for name, value in os.environ.items() if name != "GOARCH"} | settings


def _go_env(go: Toolchain, name: str) -> str:
    result = subprocess.run(  # noqa: S603 - no shell
        [str(go.go), "env", name], cwd="/", capture_output=True, text=True, check=False
    )
    return result.stdout.strip()


def own_go_caches() -> Path:
    """Go's caches for those who have none: kept when a build fails, so that the next goes on from there."""
    return cache.root() / "go-caches"


def _remove_own_go_caches() -> None:
    for path in own_go_caches().rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)  # Go makes module folders read-only
    shutil.rmtree(own_go_caches(), ignore_errors=True)
