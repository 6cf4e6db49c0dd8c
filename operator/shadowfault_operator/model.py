"""What a ChaosExperiment says: typed spec and status, parsed from and written to plain JSON.

Parsing never raises on an object that a person edited by hand: a spec that makes no sense becomes an
InvalidSpec, a status that makes no sense becomes an empty one, so that any object can be ended and deleted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from shadowfault import Scope
from shadowfault_operator.durations import format_instant, parse_duration, parse_instant
from shadowfault_operator.verdict import Verdict, parse_verdict, verdict_document

if TYPE_CHECKING:
    from collections.abc import Callable

GROUP: Final = "chaos.shadowfault.dev"
VERSION: Final = "v1alpha1"
KIND: Final = "ChaosExperiment"
PLURAL: Final = "chaosexperiments"
SCHEDULE_KIND: Final = "ChaosSchedule"
SCHEDULES: Final = "chaosschedules"
# On what a schedule has created: the name of the schedule.
SCHEDULE_LABEL: Final = "chaos.shadowfault.dev/schedule"
FINALIZER: Final = "chaos.shadowfault.dev/recovery"
ALLOWED_LABEL: Final = "chaos.shadowfault.dev/allowed"
VERDICT: Final = "Verdict"
# Worth something only because admission refuses any value but the name of whoever creates the object.
CREATED_BY: Final = "chaos.shadowfault.dev/created-by"
MOST_TRANSITIONS: Final = 20
MAX_DURATION: Final = timedelta(hours=4)
# Seconds, as for Jobs: the largest int32.
MAX_TTL: Final = 2**31 - 1

Json: TypeAlias = dict[str, Any]
T = TypeVar("T")


class Phase(StrEnum):
    """Where an experiment is. Refused and Finished are final."""

    PENDING = "Pending"
    RUNNING = "Running"
    RECOVERING = "Recovering"
    FINISHED = "Finished"
    REFUSED = "Refused"

    @property
    def final(self) -> bool:
        return self in {Phase.FINISHED, Phase.REFUSED}


@dataclass(frozen=True, order=True)
class Key:
    """Namespace and name of a namespaced object."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class _Camel(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


class TargetRef(_Camel):
    """The workload under test, in the experiment's own namespace."""

    kind: Literal["Deployment"] = "Deployment"
    name: Annotated[str, Field(min_length=1)]
    container: str | None = None


def _capped(duration: timedelta) -> timedelta:
    if not timedelta(0) < duration <= MAX_DURATION:
        raise ValueError("duration: expected more than nothing and at most 4h")
    return duration


ConditionName: TypeAlias = Literal["primaryErrorRatio", "unexplainedDiscrepancies", "shadowFailures"]


class StopConditions(_Camel):
    """What ends a run by itself: a value above its limit. Those in `disabled` end nothing.

    Shadow failures are what an experiment is for: they have no limit unless one is given.
    """

    primary_error_ratio: Annotated[float, Field(ge=0, le=1, strict=True, allow_inf_nan=False)] = 0.05
    minimum_requests: Annotated[int, Field(ge=1, strict=True)] = 20
    unexplained_discrepancies: Annotated[int, Field(ge=0, strict=True)] = 0
    shadow_failures: Annotated[int, Field(ge=0, strict=True)] | None = None
    disabled: frozenset[ConditionName] = frozenset()

    def judges(self, name: ConditionName) -> bool:
        """Whether the run is judged by that condition."""
        return name not in self.disabled and not (name == "shadowFailures" and self.shadow_failures is None)

    def any(self) -> bool:
        """Whether it is judged by any."""
        return any(self.judges(name) for name in get_args(ConditionName))


class Spec(_Camel):
    """The spec. The API server checks the same rules; an object may be older than they are."""

    target_ref: TargetRef
    rate: Annotated[float, Field(ge=0, le=1, strict=True, allow_inf_nan=False)]
    seed: Annotated[str, Field(min_length=1)] | None = None
    scope: Scope = Scope.SHADOW_WRITE_ONLY
    duration: Annotated[timedelta, BeforeValidator(parse_duration), AfterValidator(_capped)]
    suspend: bool = False
    stop_conditions: StopConditions = StopConditions()
    dry_run: bool = False
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=MAX_TTL, strict=True)] | None = None


@dataclass(frozen=True)
class InvalidSpec:
    """A spec that cannot be understood, and why."""

    problem: str


def parse_spec(raw: object) -> Spec | InvalidSpec:
    """The typed spec, or what is wrong with it."""
    try:
        return Spec.model_validate(raw)
    except ValidationError as error:
        details = (f"spec.{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        return InvalidSpec("; ".join(details))


@dataclass(frozen=True)
class OriginalEntry:
    """An environment entry that the container had before, exactly as it was.

    `managers` are the field managers that owned its value, to tell them from someone who sets it later.
    """

    entry: Json
    managers: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return str(self.entry["name"])


@dataclass(frozen=True)
class Injection:
    """What is, or is about to be, in the target; written to the status before the target is touched."""

    target_name: str
    target_uid: str
    target_generation: int
    restarted_at: str
    container: str
    environment: dict[str, str]
    originals: tuple[OriginalEntry, ...] = ()

    def original(self, name: str) -> OriginalEntry | None:
        return next((entry for entry in self.originals if entry.name == name), None)


@dataclass(frozen=True)
class Status:
    """The status. `phase` is None for an experiment that nobody has looked at."""

    phase: Phase | None = None
    reason: str = ""
    message: str = ""
    observed_generation: int | None = None
    seed: str | None = None
    effective_rate: float | None = None
    started_at: datetime | None = None
    expires_at: datetime | None = None
    finished_at: datetime | None = None
    injection: Injection | None = None
    verdict: Verdict | None = None
    # Unexplained discrepancies that were open when the run was first looked at; they are not its doing.
    unexplained_baseline: int | None = None
    preview: Json | None = None
    created_by: str = ""
    transitions: tuple[Json, ...] = ()
    conditions: tuple[Json, ...] = ()


def lengthened(transitions: tuple[Json, ...], phase: Phase, reason: str, now: datetime) -> tuple[Json, ...]:
    """The history with one more entry; the oldest go where there are more than MOST_TRANSITIONS."""
    entry = {"phase": phase.value, "reason": reason, "time": format_instant(now)}
    return (*transitions, entry)[-MOST_TRANSITIONS:]


@dataclass(frozen=True)
class Experiment:
    """One ChaosExperiment as last read."""

    key: Key
    uid: str
    resource_version: str
    generation: int
    created_at: datetime
    deleting: bool
    finalizers: tuple[str, ...]
    spec: Spec | InvalidSpec
    status: Status
    created_by: str = ""

    @property
    def judged(self) -> bool:
        """Whether there is a verdict. A schema older than verdicts keeps only its condition."""
        status = self.status
        return status.verdict is not None or any(item.get("type") == VERDICT for item in status.conditions)

    @property
    def unjudged(self) -> bool:
        """Whether a verdict is due: on what has run, is restored, and is not about to go."""
        ran = self.status.phase is Phase.FINISHED and self.status.injection is not None
        return ran and not self.deleting and not self.judged

    @property
    def has_finalizer(self) -> bool:
        return FINALIZER in self.finalizers

    @property
    def due_for_deletion(self) -> datetime | None:
        """When a finished or refused experiment is to be deleted; None for never."""
        spec, status = self.spec, self.status
        if not isinstance(spec, Spec) or spec.ttl_seconds_after_finished is None:
            return None
        if status.phase is None or not status.phase.final or status.finished_at is None:
            return None
        return status.finished_at + timedelta(seconds=spec.ttl_seconds_after_finished)

    @property
    def dry_run(self) -> bool:
        """Whether nothing is ever patched for it. A spec that makes no sense is no dry run: it is refused."""
        return isinstance(self.spec, Spec) and self.spec.dry_run

    def with_status(self, status: Status) -> Experiment:
        return replace(self, status=status)


def parse_experiment(raw: Json) -> Experiment:
    """The typed object of what the API server returned."""
    metadata = raw["metadata"]
    return Experiment(
        key=Key(metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        generation=int(metadata.get("generation", 1)),
        created_at=parse_instant(metadata["creationTimestamp"]),
        deleting="deletionTimestamp" in metadata,
        finalizers=tuple(metadata.get("finalizers") or ()),
        spec=parse_spec(raw.get("spec")),
        status=parse_status(raw.get("status")),
        created_by=str((metadata.get("annotations") or {}).get(CREATED_BY, "")),
    )


def parse_status(raw: object) -> Status:
    """The typed status; each field that cannot be understood is as if it were not there."""
    if not isinstance(raw, dict):
        return Status()
    read = partial(_tolerant, raw)
    return Status(
        phase=read("phase", Phase),
        reason=read("reason", str) or "",
        message=read("message", str) or "",
        observed_generation=read("observedGeneration", int),
        seed=read("seed", str),
        effective_rate=read("effectiveRate", float),
        started_at=read("startedAt", parse_instant),
        expires_at=read("expiresAt", parse_instant),
        finished_at=read("finishedAt", parse_instant),
        injection=read("injected", lambda injected: _parse_injection(raw, injected)),
        verdict=read("verdict", parse_verdict),
        unexplained_baseline=read("baseline", lambda known: int(known["unexplainedDiscrepancies"])),
        preview=read("preview", dict),
        created_by=read("createdBy", str) or "",
        transitions=_objects(raw.get("transitions")),
        conditions=_objects(raw.get("conditions")),
    )


def _objects(raw: object) -> tuple[Json, ...]:
    return tuple(item for item in raw if isinstance(item, dict)) if isinstance(raw, list) else ()


def _tolerant(raw: Json, field: str, parse: Callable[[Any], T]) -> T | None:
    try:
        return None if raw.get(field) is None else parse(raw[field])
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _parse_injection(raw: Json, injected: list[Json]) -> Injection:
    target = raw["target"]
    (container,) = injected  # one container a target
    originals = [
        OriginalEntry(
            entry={field: item[field] for field in ("name", "value", "valueFrom") if field in item},
            managers=frozenset(item.get("managers") or ()),
        )
        for listed in raw.get("original") or ()
        for item in listed.get("env") or ()
    ]
    return Injection(
        target_name=str(target["name"]),
        target_uid=str(target["uid"]),
        target_generation=int(target.get("generation", 0)),
        restarted_at=str(target.get("restartedAt") or ""),
        container=container["container"],
        environment={item["name"]: str(item.get("value", "")) for item in container["env"]},
        originals=tuple(originals),
    )


def status_document(status: Status) -> Json:
    """The status as a merge patch: every field is there, an absent one as null."""
    injection = status.injection
    return {
        "phase": status.phase.value if status.phase else None,
        "reason": status.reason or None,
        "message": status.message or None,
        "observedGeneration": status.observed_generation,
        "seed": status.seed,
        "effectiveRate": status.effective_rate,
        "startedAt": status.started_at and format_instant(status.started_at),
        "expiresAt": status.expires_at and format_instant(status.expires_at),
        "finishedAt": status.finished_at and format_instant(status.finished_at),
        "target": injection
        and {
            "kind": "Deployment",
            "name": injection.target_name,
            "uid": injection.target_uid,
            "generation": injection.target_generation,
            "restartedAt": injection.restarted_at or None,
        },
        "injected": injection
        and [
            {
                "container": injection.container,
                "env": [{"name": name, "value": value} for name, value in injection.environment.items()],
            }
        ],
        "original": injection
        and [
            {
                "container": injection.container,
                "env": [
                    {**original.entry, "managers": sorted(original.managers)}
                    for original in injection.originals
                ],
            }
        ],
        "verdict": status.verdict and verdict_document(status.verdict),
        "baseline": None
        if status.unexplained_baseline is None
        else {"unexplainedDiscrepancies": status.unexplained_baseline},
        "preview": status.preview,
        "createdBy": status.created_by or None,
        "transitions": list(status.transitions),
        "conditions": list(status.conditions),
    }
