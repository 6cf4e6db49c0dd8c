"""What a verification of a large table takes in memory, and that it still finds every row that differs.

`shadowfault verify`, as a process of its own, on two PostgreSQL databases of one local server: a table of ten
million rows against one of a tenth of that; a hundred rows all over each differ. The peak is what the
kernel says of the process that has ended.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from shadowfault_bench.harness import Bound
from shadowfault_bench.listings import fill
from shadowfault_testing.databases import postgresql_pair
from shadowfault_testing.postgres import PostgresServer
from shadowfault_testing.stores import Stores

if TYPE_CHECKING:
    from shadowfault_bench.harness import Bench

_ROWS: Final = 10_000_000
_DIFFERING: Final = 100
_KEYS: Final = """
    SELECT '01890000-0000-7000-8000-' || lpad(to_hex((n::bigint * 7919 * 31) % :rows + 1), 12, '0')
    FROM generate_series(1, :count) AS n
"""


@dataclass(frozen=True)
class _Run:
    peak_mib: float
    seconds: float


def run(bench: Bench) -> None:
    """Measure on a PostgreSQL server of its own."""
    sizes = (bench.size(_ROWS, least=100_000), bench.size(_ROWS // 10, least=10_000))
    with PostgresServer.start() as server, ExitStack() as stack:
        opened = []
        for rows in sizes:
            bench.say(f"two tables of {rows} rows")
            stores = stack.enter_context(Stores.opened(stack.enter_context(postgresql_pair(server))))
            for engine in (stores.primary, stores.shadow):
                fill(engine, rows)
            with stores.shadow.begin() as connection:
                changed = f"UPDATE listings SET title = 'other' WHERE id IN ({_KEYS})"
                assert connection.execute(text(changed), {"rows": rows, "count": _DIFFERING}).rowcount > 0
            opened.append(stores)
        large, small = opened
        expected = [_differing(stores) for stores in opened]
        took: list[float] = []

        def of(stores: Stores, differing: int) -> _Run:
            made = _verify(stores, differing)
            bench.say(f"peak {made.peak_mib:.0f} MiB, {made.seconds:.1f} s")
            return made

        def of_large() -> float:
            made = of(large, expected[0])
            took.append(sizes[0] / made.seconds)
            return made.peak_mib

        bench.ratio(
            f"peak of memory, {sizes[0]} / {sizes[1]} rows a side",
            of_large,
            lambda: of(small, expected[1]).peak_mib,
            Bound("at most", 1.2),
        )
        bench.figure(f"rows of a side in a second, {sizes[0]} rows", took, "rows/s")


def _verify(stores: Stores, differing: int) -> _Run:
    """Run the command once; it must find what differs, and count every row."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "shadowfault_cli", "verify", "--output", "json"],
        env={**os.environ, **stores.pair.environment()},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    report = json.loads(process.stdout.read())
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    elapsed = time.perf_counter() - began
    assert process.returncode == 1
    assert report["open"] == report["unexplained"] == differing
    return _Run(usage.ru_maxrss / 1024, elapsed)


def _differing(stores: Stores) -> int:
    with stores.shadow.connect() as connection:
        query = "SELECT count(*) FROM listings WHERE title = 'other'"
        return int(connection.execute(text(query)).scalar_one())
