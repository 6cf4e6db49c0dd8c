"""The closed list of reasons: each ends up in a condition, in one Event and in a metric label."""

from __future__ import annotations

from enum import Enum, StrEnum


class EventType(StrEnum):
    """The two types Kubernetes Events have."""

    NORMAL = "Normal"
    WARNING = "Warning"


class Reason(Enum):
    """Why an experiment is where it is: (reason as written, type of its Event, what it means)."""

    # On the way
    ACCEPTED = ("Accepted", EventType.NORMAL, "the safety nets passed; what the target had is recorded")
    WAITING = ("Suspended", EventType.NORMAL, "spec.suspend is true before the start: nothing is injected")
    INJECTED = ("Injected", EventType.NORMAL, "the chaos environment is in the target")
    RECOVERED = ("Recovered", EventType.NORMAL, "nothing of the experiment is left in the target")
    RATE_LOWERED = (
        "RateLowered",
        EventType.NORMAL,
        "someone lowered CHAOS_FAIL_RATE: honoured, the run goes on",
    )

    # While it runs: whether the metrics that stop conditions are judged by can be read
    METRICS_READ = ("MetricsRead", EventType.NORMAL, "stop conditions are judged by the target's own metrics")
    METRICS_UNAVAILABLE = (
        "MetricsUnavailable",
        EventType.WARNING,
        "not all ready pods tell their metrics: those that do are judged, the run goes on",
    )
    METRICS_MISSING = (
        "MetricsMissing",
        EventType.WARNING,
        "the target does not expose what a stop condition is judged by: the run goes on without it",
    )

    # Ends that were asked for
    DRY_RUN = ("DryRun", EventType.NORMAL, "spec.dryRun is true and no safety net refuses: status.preview")
    EXPIRED = ("Expired", EventType.NORMAL, "the deadline has come")
    DELETED = ("Deleted", EventType.NORMAL, "the experiment was deleted")
    SUSPENDED = ("SuspendedWhileRunning", EventType.NORMAL, "spec.suspend became true during the run")
    OVERRIDDEN = ("Overridden", EventType.NORMAL, "someone else set CHAOS_ENABLED; it stays as set")
    RATE_CHANGED = ("RateRaised", EventType.WARNING, "someone raised CHAOS_FAIL_RATE or made it unreadable")
    SEED_CHANGED = ("SeedChanged", EventType.WARNING, "someone changed CHAOS_SEED")
    SCOPE_CHANGED = ("ScopeChanged", EventType.WARNING, "someone changed CHAOS_SCOPE")
    ENVIRONMENT_CHANGED = (
        "EnvironmentChanged",
        EventType.WARNING,
        "someone changed the deadline or the experiment's name in the target",
    )
    ENVIRONMENT_REMOVED = (
        "EnvironmentRemoved",
        EventType.NORMAL,
        "the chaos environment was removed, by `rollout undo`, a GitOps tool or a person",
    )
    RESTARTED = ("RolloutRestarted", EventType.NORMAL, "`kubectl rollout restart` after the injection")
    SCALED_TO_ZERO = ("ScaledToZero", EventType.NORMAL, "the target has no replicas")

    # Ends that the surroundings force
    STOP_CONDITION_MET = (
        "StopConditionMet",
        EventType.WARNING,
        "a value of spec.stopConditions is above its limit",
    )
    HALTED = ("Halted", EventType.WARNING, "the global halt is in force, or cannot be read")
    TARGET_GONE = ("TargetGone", EventType.WARNING, "the target was deleted during the run")
    TARGET_RECREATED = ("TargetRecreated", EventType.WARNING, "the target is another object of the same name")
    PODS_NOT_READY = ("PodsNotReady", EventType.WARNING, "the injected pods did not become ready in time")
    RECORD_LOST = ("RecordLost", EventType.WARNING, "the status no longer says what was injected")
    INTERRUPTED = (
        "Interrupted",
        EventType.WARNING,
        "the target changed while the operator was down in the middle of the injection",
    )

    # Safety nets: refusals before the start, and the ends of a run that no longer passes them
    INVALID_SPEC = ("InvalidSpec", EventType.WARNING, "the spec cannot be understood")
    NAMESPACE_NOT_ALLOWED = ("NamespaceNotAllowed", EventType.WARNING, "the namespace has not opted in")
    PRODUCTION_NAMESPACE = ("ProductionNamespace", EventType.WARNING, "the namespace is a production one")
    PRODUCTION_TARGET = ("ProductionTarget", EventType.WARNING, "the target is a production one")
    NODE_ENV_UNRESOLVABLE = (
        "NodeEnvUnresolvable",
        EventType.WARNING,
        "NODE_ENV of the target cannot be told without reading what the operator may not read",
    )
    TARGET_NOT_FOUND = ("TargetNotFound", EventType.WARNING, "there is no such target")
    TARGET_BUSY = ("TargetBusy", EventType.WARNING, "another experiment has this target")
    TARGET_HANDED_OVER = (
        "TargetHandedOver",
        EventType.WARNING,
        "the target is in the hands of Argo Rollouts or Flagger, which run copies of its pods",
    )
    TARGET_PAUSED = ("TargetPaused", EventType.WARNING, "rollouts of the target are paused")
    TARGET_WITHOUT_REPLICAS = ("TargetWithoutReplicas", EventType.WARNING, "the target is scaled to zero")
    CHAOS_ALREADY_ENABLED = (
        "ChaosAlreadyEnabled",
        EventType.WARNING,
        "someone has set CHAOS_ENABLED=true on the target by hand",
    )
    CONTAINER_NOT_FOUND = ("ContainerNotFound", EventType.WARNING, "the target has no such container")
    CONTAINER_AMBIGUOUS = (
        "ContainerAmbiguous",
        EventType.WARNING,
        "the target has several containers and spec.targetRef.container names none",
    )
    DUPLICATE_ENV = ("DuplicateEnvironment", EventType.WARNING, "the container lists a variable twice")

    # The verdict on a run that is over; why it is that is in status.verdict.reason
    VERDICT_PASSED = ("VerdictPassed", EventType.NORMAL, "everything that happened is explained")
    VERDICT_FAILED = (
        "VerdictFailed",
        EventType.WARNING,
        "discrepancies are unexplained, or users saw errors",
    )
    VERDICT_INCONCLUSIVE = ("VerdictInconclusive", EventType.NORMAL, "the run shows neither")

    # The operator cannot go on for now and tries again
    API_REFUSED = ("ApiRefused", EventType.WARNING, "the API server refuses what the operator has to do")

    def __init__(self, title: str, event_type: EventType, meaning: str) -> None:
        self.title = title
        self.event_type = event_type
        self.meaning = meaning

    @classmethod
    def titled(cls, title: str) -> Reason | None:
        """The one that is written so; None where a person wrote something else."""
        return next((reason for reason in cls if reason.title == title), None)
