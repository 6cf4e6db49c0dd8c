"""The verdict on an experiment that is over: a pure function of what the target answered."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any

from shadowfault.account import COMPLETE, Account, AccountError, parse_account
from shadowfault_operator.durations import format_instant, parse_instant

if TYPE_CHECKING:
    from datetime import datetime


class Result(StrEnum):
    """What a verdict comes to."""

    PASSED = "Passed"
    FAILED = "Failed"
    INCONCLUSIVE = "Inconclusive"


class Finding(Enum):
    """Why, from a closed list: (reason as written, result, what it means)."""

    ALL_EXPLAINED = (
        "AllExplained",
        Result.PASSED,
        "every discrepancy has its cause, and no write of a user failed",
    )
    UNEXPLAINED = ("UnexplainedDiscrepancies", Result.FAILED, "discrepancies that no failed write explains")
    PRIMARY_ERRORS = ("PrimaryErrors", Result.FAILED, "writes of users were answered with an error")
    NOTHING_INJECTED = (
        "NothingInjected",
        Result.INCONCLUSIVE,
        "no shadow write was made to fail: nothing was tested",
    )
    NO_POD = ("NoReadyPod", Result.INCONCLUSIVE, "the target has no ready pod that could be asked")
    NOT_KEPT = ("NoAccountKept", Result.INCONCLUSIVE, "the target keeps no account of this experiment")
    UNREADABLE = ("AccountUnreadable", Result.INCONCLUSIVE, "what the target answered is no account")
    UNREACHABLE = ("TargetUnreachable", Result.INCONCLUSIVE, "no pod of the target answered")
    NOT_IN_TIME = ("AccountNotInTime", Result.INCONCLUSIVE, "the account was not complete in time")
    TARGET_GONE = ("TargetGone", Result.INCONCLUSIVE, "the target is not there any more")

    def __init__(self, title: str, result: Result, meaning: str) -> None:
        self.title = title
        self.result = result
        self.meaning = meaning


@dataclass(frozen=True)
class Verdict:
    """A verdict as it stands in the status."""

    result: Result
    reason: str
    message: str
    time: datetime
    account: Account | None = None


def judge(answer: Account | Finding, now: datetime) -> Verdict:
    """The verdict on an account, or on what kept it from being given."""
    time = now.replace(microsecond=0)
    if isinstance(answer, Finding):
        return Verdict(answer.result, answer.title, answer.meaning, time)
    finding = _found(answer)
    return Verdict(finding.result, finding.title, _told(answer, finding), time, answer)


def _found(account: Account) -> Finding:
    # What is wrong is wrong, whether or not anything was injected.
    if account.unexplained:
        return Finding.UNEXPLAINED
    if account.primary_errors:
        return Finding.PRIMARY_ERRORS
    return Finding.ALL_EXPLAINED if account.injected else Finding.NOTHING_INJECTED


def _told(account: Account, finding: Finding) -> str:
    requests = "" if account.primary_requests is None else f" of {account.primary_requests} writes of users"
    errors = "unknown" if account.primary_errors is None else account.primary_errors
    return (
        f"{finding.meaning}: {account.injected} injected, {account.shadow_failures} shadow writes failed, "
        f"{sum(account.discrepancies.values())} discrepancies, {account.unexplained} of them unexplained, "
        f"primary errors: {errors}{requests}"
    )


def verdict_document(verdict: Verdict) -> dict[str, Any]:
    """The verdict as it is written; a figure that is not known is null, and so not there."""
    account = verdict.account
    return {
        "result": verdict.result.value,
        "reason": verdict.reason,
        "message": verdict.message,
        "time": format_instant(verdict.time),
        "account": None if account is None else account.figures(),
    }


def parse_verdict(raw: dict[str, Any]) -> Verdict:
    """The verdict of what stands in the status.

    Raises:
        ValueError, KeyError, TypeError: it makes no sense.
    """
    if not isinstance(raw["reason"], str):
        raise TypeError("the reason is no text")
    return Verdict(
        Result(raw["result"]),
        raw["reason"],
        str(raw.get("message") or ""),
        parse_instant(raw["time"]),
        _parse_figures(raw.get("account")),
    )


def _parse_figures(figures: dict[str, Any] | None) -> Account | None:
    if figures is None:
        return None
    try:
        return parse_account({"state": COMPLETE, "experimentUid": "", **figures}, "")
    except AccountError:
        return None
