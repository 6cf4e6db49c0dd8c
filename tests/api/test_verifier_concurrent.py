"""The verifier beside the real service: nothing in flight is taken for lost, nothing lost is excused."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from shadowfault_api.evidence import EventType
from shadowfault_api.verifier import Mode, VerifierOptions, VerifierReport, verify_stores

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shadowfault_testing.service import Service
    from shadowfault_testing.stores import Stores

    Start = Callable[..., Awaitable[Service]]

# Chunks and lives so small that a scan meets rows that are being written all the time.
OPTIONS = VerifierOptions(chunk_size=3, connect_seconds=60)
PATIENT = {"shadow_timeout_seconds": 60.0, "shadow_claim_seconds": 200.0, "database_timeout_seconds": 60.0}
LIVES_OF_A_CLIENT = 12
CLIENTS = 6


async def live(service: Service, seed: int) -> None:
    """Create, change and delete, as a client does; one in three listings stays."""
    choice = random.Random(seed)  # noqa: S311 - a plan, no secret
    for number in range(LIVES_OF_A_CLIENT):
        listing = await service.create(f"{seed}-{number}", choice.randrange(1000))
        for _ in range(choice.randrange(4)):
            answer = await service.client.patch(
                f"/api/listings/{listing['id']}", json={"price": choice.randrange(1000)}
            )
            assert answer.is_success, answer.text
        if choice.randrange(3):
            answer = await service.client.delete(f"/api/listings/{listing['id']}")
            assert answer.is_success, answer.text


async def verify(stores: Stores, mode: Mode = Mode.FULL) -> VerifierReport:
    options = replace(OPTIONS, mode=mode)
    return await asyncio.to_thread(verify_stores, stores.primary, stores.shadow, options=options)


async def verified_under_writes(
    stores: Stores, replicas: list[Service], mode: Mode = Mode.FULL
) -> list[VerifierReport]:
    """Verify again and again until the clients are done, and once more when all is settled."""
    writing = asyncio.gather(*(live(replicas[seed % len(replicas)], seed) for seed in range(CLIENTS)))
    reports = []
    while not writing.done():
        reports.append(await verify(stores, mode))
    await writing
    await replicas[0].settled()
    reports.append(await verify(stores, mode))
    return reports


async def test_no_false_alarm_while_replicas_write(stores: Stores, start: Start) -> None:
    replicas = [await start(**PATIENT), await start(**PATIENT)]
    reports = await verified_under_writes(stores, replicas)
    assert [report.open for report in reports] == [0] * len(reports)
    assert stores.evidence(EventType.SHADOW_WRITE_DISCREPANCY) == []
    assert sum(report.in_flight for report in reports) > 0, (
        "the scan never met a write: the test shows nothing"
    )
    assert reports[-1].in_flight == 0
    assert reports[-1].scanned_primary == reports[-1].scanned_shadow > 0


@pytest.mark.parametrize("mode", list(Mode))
async def test_every_injected_loss_is_found_and_explained_while_replicas_write(
    stores: Stores, start: Start, mode: Mode
) -> None:
    chaos = {"fail_rate": "0.3", "seed": "s", "experiment": "staging/third", "experiment_uid": "uid-1"}
    replicas = [await start(chaos=chaos, **PATIENT), await start(chaos=chaos, **PATIENT)]
    await verify(stores)  # so that all that follow are of that mode
    reports = await verified_under_writes(stores, replicas, mode)
    assert {report.mode for report in reports} == {mode}
    assert [report.unexplained for report in reports] == [0] * len(reports)
    assert stores.open_discrepancies() == {
        key: (kind, "injected") for key, kind in naive(replicas[0]).items()
    }
    assert reports[-1].open > 0
    for record in stores.evidence(EventType.SHADOW_WRITE_DISCREPANCY):
        assert record.details["experimentUid"] == "uid-1"


def naive(service: Service) -> dict[str, str]:
    query = "SELECT id, title, price, version, updated_at FROM listings"
    primary = {row["id"]: row for row in service.primary(query)}
    shadow = {row["id"]: row for row in service.shadow(f"{query} WHERE deleted_at IS NULL")}
    missing = dict.fromkeys(primary.keys() - shadow.keys(), "missing_in_shadow")
    stray = dict.fromkeys(shadow.keys() - primary.keys(), "missing_in_primary")
    both = primary.keys() & shadow.keys()
    return missing | stray | {key: "data_mismatch" for key in both if primary[key] != shadow[key]}
