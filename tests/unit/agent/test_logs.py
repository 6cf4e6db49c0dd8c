"""What is written comes back, whole and in order, as `kubectl logs` asks for it."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shadowfault_cluster.agent import logs
from shadowfault_cluster.agent.logs import ContainerLog, LogOptions, read_log, tail_of

if TYPE_CHECKING:
    from pathlib import Path


async def read(log: ContainerLog, **options: object) -> bytes:
    return b"".join([text async for text in read_log(log.path, LogOptions(**options))])  # type: ignore[arg-type]


@pytest.fixture
def log(tmp_path: Path) -> ContainerLog:
    return ContainerLog(tmp_path / "main" / "0.log")


@given(st.lists(st.binary(max_size=40), max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_pieces_of_any_size_are_put_together(tmp_path: Path, pieces: list[bytes]) -> None:
    log = ContainerLog(tmp_path / f"{abs(hash(tuple(pieces)))}.log")
    log.path.write_bytes(b"")
    for piece in pieces:
        log.feed("stdout", piece)
    log.close()
    assert await read(log) == b"".join(pieces)


async def test_long_lines_are_split_in_the_file_only(log: ContainerLog) -> None:
    line = b"x" * 50_000
    log.feed("stdout", line + b"\nshort\n")
    log.close()
    assert await read(log) == line + b"\nshort\n"
    assert await read(log, tail=2) == line + b"\nshort\n"
    assert max(len(record) for record in log.path.read_bytes().split(b"\n")) < 20_000


async def test_tail_stream_limit_and_time(log: ContainerLog) -> None:
    log.feed("stdout", b"one\ntwo\n")
    log.feed("stderr", b"three\n")
    log.close()
    assert await read(log, tail=1) == b"three\n"
    assert await read(log, tail=0) == b""
    assert await read(log, stream="Stdout") == b"one\ntwo\n"
    assert await read(log, limit_bytes=5) == b"one\nt"
    assert await read(log, since=dt.datetime(2999, 1, 1, tzinfo=dt.UTC)) == b""
    stamp, text = (await read(log, timestamps=True, tail=1)).split(b" ", 1)
    assert dt.datetime.fromisoformat(stamp.decode()).tzinfo is dt.UTC
    assert text == b"three\n"
    assert tail_of(log.path, lines=2, size=9) == "wo\nthree\n"


async def test_a_follower_sees_every_line_once_and_the_end(log: ContainerLog) -> None:
    log.feed("stdout", b"before\n")
    seen = bytearray()

    async def follow() -> None:
        async for text in read_log(log.path, LogOptions(follow=True), log):
            seen.extend(text)
            if seen == b"before\n":
                log.feed("stdout", b"after\nunfin")
                log.feed("stdout", b"ished\nrest")
                log.close()

    await asyncio.wait_for(follow(), 10)
    assert seen == b"before\nafter\nunfinished\nrest"


async def test_a_follower_that_does_not_read_is_cut_off(
    log: ContainerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_MAX_UNREAD", 2)
    follower = log.follow()
    for number in range(5):
        log.feed("stdout", b"%d\n" % number)
    assert [follower.get_nowait() is None for _ in range(2)] == [False, True]
    log.close()


async def test_a_log_that_grows_too_large_keeps_its_last_part(
    log: ContainerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_MAX_FILE", 1000)
    for number in range(100):
        log.feed("stdout", b"line %d\n" % number)
    log.close()
    lines = (await read(log)).splitlines()
    assert lines[-1] == b"line 99"
    assert lines == [b"line %d" % number for number in range(100 - len(lines), 100)]
    assert sum(path.stat().st_size for path in log.path.parent.iterdir()) <= 2000
