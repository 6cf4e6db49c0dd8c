"""The dual write under every mix of faults and deaths: no acknowledged write is lost, no key goes back.

The parts are the real ones over real databases; the steps of two replicas are interleaved at will.
A claim runs out at once here, so that both replicas take up the same rows again and again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, exc

import shadowfault
from shadowfault_api.deadline import Deadline
from shadowfault_api.entities import Origin, OutboxEntry
from shadowfault_api.evidence import EventType
from shadowfault_api.metrics import Metrics
from shadowfault_api.shadow.breaker import CircuitBreaker
from shadowfault_api.shadow.path import ShadowPath
from shadowfault_api.shadow.settle import Outcome, Settler
from shadowfault_api.store.outbox import Outbox
from shadowfault_api.store.primary import Change, ListingStore, Primary
from shadowfault_api.store.schema import evidence_records, listings, outbox, shadow_listings
from shadowfault_api.store.shadow import Shadow
from shadowfault_api.store.urls import create_asynchronous_engine
from shadowfault_api.tracing import NoTracing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncEngine

    from shadowfault_testing.stores import Stores

REPLICAS: Final = 2
KEYS: Final = 2


class Mood(Enum):
    """What the shadow does to the next batch."""

    WELL = auto()
    UNAVAILABLE = auto()  # it refuses the connection
    TIMEOUT = auto()  # the deadline passes, and nothing was written
    HUNG = auto()  # the deadline passes, and what was sent lands later
    ANSWER_LOST = auto()  # it writes, and the connection breaks
    PICKY = auto()  # it refuses one key by a constraint


class Do(Enum):
    """One step."""

    CREATE = auto()
    PATCH = auto()
    DELETE = auto()
    TAKE_UP = auto()  # the sweeper claims what is pending
    ATTEMPT = auto()  # the consumer decides and writes to the shadow
    RECORD = auto()  # and puts on record what came of it
    PROBE = auto()  # the breaker asks the shadow
    DIE = auto()  # SIGKILL and restart: whatever was in memory is gone
    LAND = auto()  # what hung arrives


class Step(NamedTuple):
    do: Do
    replica: int
    key: int
    mood: Mood


STEPS = st.lists(
    st.builds(
        Step,
        # Writes and attempts more often than the rest: without them nothing can be lost.
        st.sampled_from([*Do, Do.CREATE, Do.PATCH, Do.PATCH, Do.ATTEMPT, Do.ATTEMPT, Do.RECORD, Do.RECORD]),
        st.integers(0, REPLICAS - 1),
        st.integers(0, KEYS - 1),
        st.sampled_from([*Mood, *[Mood.WELL] * 6]),
    ),
    min_size=20,
    max_size=60,
)


class MoodyShadow(Shadow):
    """The shadow, with a mood."""

    def __init__(
        self,
        url: str,
        engine: AsyncEngine,
        hung: list[Sequence[OutboxEntry]],
        made: set[tuple[str, int]],
    ) -> None:
        super().__init__(url, engine, engine, migrate_timeout_seconds=5)
        self.mood = Mood.WELL
        self.picky_about = ""
        self._hung = hung
        self._made = made

    async def apply(self, entries: Sequence[OutboxEntry]) -> Sequence[OutboxEntry]:
        if self.mood is Mood.UNAVAILABLE:
            raise ConnectionRefusedError
        if self.mood in {Mood.TIMEOUT, Mood.HUNG}:
            if self.mood is Mood.HUNG:
                self._hung.append(list(entries))
            raise TimeoutError
        if self.mood is Mood.PICKY and any(entry.entity_id == self.picky_about for entry in entries):
            raise exc.IntegrityError("INSERT", None, Exception())
        overtaken = await super().apply(entries)
        self._made |= {(one.entity_id, one.version) for one in entries if one not in overtaken}
        if self.mood is Mood.ANSWER_LOST:
            raise ConnectionResetError
        return overtaken


@dataclass
class Replica:
    """A process: what it has in memory."""

    path: ShadowPath
    shadow: MoodyShadow
    settler: Settler
    queue: list[OutboxEntry] = field(default_factory=list)
    attempted: Outcome | None = None


class Content(NamedTuple):
    title: str
    price: Decimal


class World:
    """Databases, replicas, and what the users were told."""

    def __init__(self, stores: Stores, rate: float) -> None:
        self._stores = stores
        self._rate = rate
        self._engine = create_asynchronous_engine(stores.pair.primary, pool_size=2)
        self._shadow_engine = create_asynchronous_engine(stores.pair.shadow, pool_size=2)
        self._primary = Primary(self._engine)
        self._listings = ListingStore(self._primary)
        self._hung: list[Sequence[OutboxEntry]] = []
        # Writes the shadow has taken, or a newer one of their key in the same batch.
        self._made: set[tuple[str, int]] = set()
        self._real = Shadow(
            stores.pair.shadow, self._shadow_engine, self._shadow_engine, migrate_timeout_seconds=5
        )
        self.replicas = [self._replica(n) for n in range(REPLICAS)]
        self.ids: list[str] = []
        # What was acknowledged: by key each version's content, None for a delete.
        self.told: dict[str, dict[int, Content | None]] = {}
        self._seen: dict[str, int] = {}

    def _replica(self, number: int) -> Replica:
        injector = None
        if self._rate:
            config = shadowfault.ChaosConfig(
                enabled=True, fail_rate=self._rate, seed=f"s{number}", scope=shadowfault.Scope.READS
            )
            injector = shadowfault.FaultInjector(config)
        shadow = MoodyShadow(self._stores.pair.shadow, self._shadow_engine, self._hung, self._made)
        path = ShadowPath(
            Outbox(self._primary, claim_seconds=-1),
            shadow,
            CircuitBreaker(3, 0),
            Deadline(60),
            Metrics(),
            NoTracing(),
        )
        return Replica(path, shadow, Settler(path, injector))

    async def close(self) -> None:
        await self._real.close()
        await self._engine.dispose()

    async def step(self, step: Step) -> None:
        replica = self.replicas[step.replica]
        if step.do in {Do.CREATE, Do.PATCH, Do.DELETE}:
            await self._write(step, replica)
        elif step.do is Do.TAKE_UP and replica.path.breaker.closed:
            replica.queue.extend(await replica.path.outbox.claim(5))
        elif step.do is Do.ATTEMPT and replica.attempted is None and replica.queue:
            replica.shadow.mood = step.mood
            replica.shadow.picky_about = self.ids[step.key % len(self.ids)]
            batch, replica.queue = replica.queue[:4], replica.queue[4:]
            replica.attempted = await replica.settler.attempt(batch)
        elif step.do is Do.RECORD and replica.attempted is not None:
            await replica.settler.record(replica.attempted)
            replica.attempted = None
        elif step.do is Do.PROBE and replica.path.breaker.begin_probe():
            (replica.path.breaker.answered if step.mood is Mood.WELL else replica.path.breaker.failed)()
        elif step.do is Do.DIE:
            self.replicas[step.replica] = self._replica(step.replica)
        elif step.do is Do.LAND and self._hung:
            await self._real.apply(self._hung.pop(step.key % len(self._hung)))

    async def _write(self, step: Step, replica: Replica) -> None:
        origin = Origin(claim_seconds=-1)
        content = Content(f"title {sum(map(len, self.told.values()))}", Decimal(step.key))
        living = [key for key in self.ids if max(self.told[key].items())[1] is not None]
        if step.do is Do.CREATE and len(self.ids) < KEYS:
            listing, entry = await self._listings.create(content.title, content.price, origin)
            self.ids.append(listing.id)
        elif not living or step.do is Do.CREATE:
            return
        elif step.do is Do.PATCH:
            change = Change(content.title, content.price)
            _, entry = await self._listings.update(living[step.key % len(living)], change, origin)
        else:
            entry = await self._listings.delete(living[step.key % len(living)], origin)
        gone = step.do is Do.DELETE
        self.told.setdefault(entry.entity_id, {})[entry.version] = None if gone else content
        if replica.path.breaker.closed:
            replica.queue.append(entry)

    async def settle(self) -> None:
        """Quiescence: what hung lands, all die, and one that is well takes up the rest."""
        for entries in self._hung:
            await self._real.apply(entries)
        self._hung.clear()
        self._rate = 0.0
        replica = self._replica(0)
        while entries := await replica.path.outbox.claim(5):
            assert not await replica.settler.settle(entries)

    def check(self) -> None:
        """What holds after every step."""
        held = {row.id: row for row in self._stores.rows(shadow_listings, self._stores.shadow)}
        waiting = {(row.entity_id, row.version) for row in self._stores.rows(outbox)}
        for key, versions in self.told.items():
            row = held.get(key)
            version = row.version if row else 0
            assert version >= self._seen.get(key, 0), "a key went back"
            self._seen[key] = version
            if row:
                content = None if row.deleted_at else Content(row.title, row.price)
                assert content == versions[version], "the shadow holds what nobody wrote"
            newest = max(versions)
            assert version == newest or (key, newest) in waiting, "an acknowledged write is nowhere"

    def check_settled(self) -> None:
        """What holds when all has come to rest."""
        self.check()
        rows = self._stores.rows(outbox)
        assert {row.state for row in rows} <= {"failed"}
        evidence = [
            row
            for row in self._stores.rows(evidence_records)
            if row.event_type == EventType.SHADOW_WRITE_FAILURE.value and row.entity_id in self.told
        ]
        recorded = [row.details["outboxId"] for row in evidence]
        assert len(recorded) == len(set(recorded)), "a failure was recorded twice"
        assert {row.id for row in rows} <= set(recorded), "a failure is not on record"
        failed = {(row.entity_id, row.details["version"]) for row in evidence}
        for key, versions in self.told.items():
            for version in versions:
                assert (key, version) in self._made | failed, "a write is not accounted for"
        alive = {row.id for row in self._stores.rows(listings)}
        assert alive == {key for key, versions in self.told.items() if versions[max(versions)] is not None}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=STEPS, rate=st.sampled_from([0.0, 0.0, 0.5, 1.0]))
def test_no_interleaving_of_writes_faults_and_deaths_loses_a_write_or_takes_a_key_back(
    stores: Stores, steps: list[Step], rate: float
) -> None:
    _empty(stores)
    asyncio.run(_play(stores, steps, rate))


async def _play(stores: Stores, steps: list[Step], rate: float) -> None:
    world = World(stores, rate)
    try:
        for step in steps:
            await world.step(step)
            world.check()
        await world.settle()
        world.check_settled()
    finally:
        await world.close()


def _empty(stores: Stores) -> None:
    with stores.primary.begin() as connection:
        for table in (outbox, listings):
            connection.execute(delete(table))
    with stores.shadow.begin() as connection:
        connection.execute(delete(shadow_listings))
