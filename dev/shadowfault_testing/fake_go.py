"""A stand-in for Go, for tests of what happens around a build."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FakeGo:
    """A `go` on PATH that is a shell script: it answers `env`, `list` and `build` as a test wants."""

    path: Path

    def behave(self, *, version: str = "go1.26.0", on_list: str = "echo a/pkg", on_build: str = "") -> None:
        """Write the script; `$out` is the file that `build` is to write."""
        build = on_build or 'printf "#!/bin/sh\\n" >"$out"; chmod +x "$out"; echo a/pkg >&2'
        self.path.write_text(
            f"""#!/bin/sh
echo "$@" >>{self.path}.calls
case "$1" in
env) case "$2" in GOVERSION) echo {version};; *) echo /nonexistent;; esac ;;
list) {on_list} ;;
build) while [ "$1" != -o ]; do shift; done; out="$2"; {build} ;;
esac
"""
        )
        self.path.chmod(self.path.stat().st_mode | stat.S_IXUSR)

    def calls(self, command: str) -> list[str]:
        """The command lines it was called with that begin with `command`."""
        log = Path(f"{self.path}.calls")
        lines = log.read_text().splitlines() if log.exists() else []
        return [line for line in lines if line.startswith(command)]
