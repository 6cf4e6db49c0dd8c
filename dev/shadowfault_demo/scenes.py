"""The story, scene by scene: each acts as a person would (kubectl, HTTP, SQL) and checks what can be seen."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx

import shadowfault
from shadowfault_demo.ground import NAMESPACE, PRODUCTION, Ground, await_rollout, experiment
from shadowfault_demo.observe import (
    DISCREPANCIES_SQL,
    FAILURES_SQL,
    chaos_environment,
)
from shadowfault_demo.traffic import SteadyTraffic, create_listings, request_ids
from shadowfault_demo.waiting import until

if TYPE_CHECKING:
    from shadowfault_demo.ledger import Ledger

ENTITY = "Listing"
CREATE_LABELS = f'entity_type="{ENTITY}",operation="create"'
INJECTED = f"chaos_injected_faults_total{{{CREATE_LABELS}}}"
FAILED = f'shadow_write_failures_total{{{CREATE_LABELS},failure_type="injected"}}'
SUCCEEDED = f"shadow_write_successes_total{{{CREATE_LABELS}}}"


@dataclass(frozen=True)
class Run:
    """One experiment as it is applied."""

    name: str
    seed: str
    rate: float
    duration: str


class Story:
    """The scenes over one ground, in the order `cli` tells them."""

    def __init__(self, ground: Ground, ledger: Ledger) -> None:
        self._ground = ground
        self._kubectl = ground.cluster.kubectl
        self._staging = ground.staging
        self._ledger = ledger
        self._api = ground.staging.service_address()
        self._template_before: dict[str, Any] = {}

    # -- scenes ---------------------------------------------------------------------------------

    def production_is_refused(self) -> None:
        """Scene: the same manifest, in a namespace that is production by its name."""
        self._ledger.scene("An experiment in production is refused")
        answer = self._kubectl(
            "apply", "-f", "-", input=experiment("shadow-30pct", namespace=PRODUCTION), check=False
        )
        self._ledger.show(f"kubectl -n {PRODUCTION} apply -f experiment.yaml", answer.stderr or answer.stdout)
        stored = self._kubectl("-n", PRODUCTION, "get", "chaosexperiments", "-o", "name").stdout.strip()
        self._ledger.promise(
            "Production is unreachable: the API server refuses the experiment, though the namespace opted in",
            kept=answer.returncode != 0 and not stored,
            observed=f"kubectl exit status {answer.returncode}, experiments stored: {stored or 'none'}",
        )

    def all_is_quiet_before(self) -> None:
        """Scene: without an experiment every write reaches both stores."""
        self._ledger.scene("Before: 60 listings, no experiment")
        account = create_listings(self._api, request_ids("before", 60))
        self._settle()
        self._ledger.promise("Every request succeeds", account.refused == 0, f"{account}")
        report = self._verify("before")
        self._ledger.promise(
            "Safe by default: nothing is injected and both stores agree",
            self._staging.failures() == 0 and report["open"] == 0,
            f"injected faults: {self._staging.failures()}, discrepancies: {report['open']}",
        )
        self._template_before = self._staging.get("deployment", "api")["spec"]["template"]

    def an_experiment_runs(self, run: Run) -> None:
        """Scene: apply, traffic, metrics; every fault was predictable."""
        self._ledger.scene(f"An experiment: {run.rate:.0%} of shadow writes fail, seed {run.seed}")
        uid = self._apply(run)
        chaos = self._staging.health()
        self._ledger.show("curl -s $API_URL/health | jq .chaos", json.dumps(chaos[0]["chaos"]))
        injecting = sum(bool(document["chaos"]["enabled"]) for document in chaos)
        self._ledger.promise(
            "The operator injected it into every replica",
            injecting == len(chaos) == 3,
            f"{injecting} of {len(chaos)} ready pods report chaos enabled",
        )
        ids = request_ids("traffic", 200)
        account = create_listings(self._api, ids)
        self._ledger.promise("Primary writes always succeed", account.refused == 0, f"{account}")
        self._settle()
        metrics = self._staging.metrics()
        self._ledger.show(
            "curl -s $API_URL/metrics | grep shadow   # summed over 3 pods",
            "\n".join(f"{series} {metrics.get(series, 0):.0f}" for series in (FAILED, SUCCEEDED, INJECTED)),
        )
        planned = planned_faults(run, ids)
        self._ledger.promise(
            "The metrics count each injected fault, over all replicas",
            metrics.get(INJECTED) == metrics.get(FAILED) == len(planned),
            f"planned {len(planned)}, injected {metrics.get(INJECTED, 0):.0f},"
            f" failed {metrics.get(FAILED, 0):.0f} of {account.sent}",
        )
        failed = self._staging.failed_request_ids(uid)
        self._ledger.promise(
            "The seed told in advance which requests would fail",
            failed == planned,
            f"{len(failed)} failed requests, the planned ones"
            if failed == planned
            else f"{failed} != {planned}",
        )

    def the_verifier_finds_it(self) -> None:
        """Scene: the CronJob's job, now; each discrepancy has its cause."""
        self._ledger.scene("The verifier compares the stores")
        injected = self._staging.failures()
        report = self._verify("during")
        self._ledger.promise(
            "Every discrepancy is found, and every one is explained",
            report["open"] == injected and report["unexplained"] == 0,
            f"{injected} injected faults, {report['open']} discrepancies,"
            f" {report['unexplained']} unexplained",
        )
        series = f'shadow_discrepancies_total{{entity_type="{ENTITY}",discrepancy_type="missing_in_shadow"}}'
        text = httpx.get(f"{self._api}/metrics", timeout=5, trust_env=False).text
        shown = [line for line in text.splitlines() if line.startswith("shadow_discrepanc")]
        self._ledger.show("curl -s $API_URL/metrics | grep shadow_discrepanc", "\n".join(shown))
        self._ledger.promise(
            "The service exposes what the verifier found",
            any(line.startswith(series) and float(line.split()[-1]) == injected for line in shown),
            f"{series} expected {injected}",
        )

    def the_evidence_is_there(self) -> None:
        """Scene: the contract's SQL, and a hand that tries to change the past."""
        self._ledger.scene("Evidence for the auditor")
        for query in (FAILURES_SQL, DISCREPANCIES_SQL):
            rows = self._staging.sql(query)
            columns = ("occurred_at", "event_type", "event_outcome", "request_id", "details")
            table = [" | ".join(str(row[column]) for column in columns) for row in rows[:3]]
            self._ledger.show(" ".join(query.split()), "\n".join(table))
            self._ledger.promise(
                "The evidence table answers the contract's SQL",
                bool(rows),
                f"{len(rows)} rows of {rows[0]['event_type'] if rows else 'nothing'}",
            )
        refusals = [
            self._staging.refused_by_trigger("UPDATE evidence_records SET event_outcome = 'SUCCESS'"),
            self._staging.refused_by_trigger("DELETE FROM evidence_records"),
        ]
        self._ledger.promise(
            "Evidence is immutable", all(refusals), "; ".join(str(refusal) for refusal in refusals)
        )

    def delete_is_the_kill_switch(self, run: Run) -> None:
        """Scene: kubectl delete under load; the last fault, and what the Deployment is afterwards."""
        self._ledger.scene("Kill switch: kubectl delete, under load")
        before = self._staging.failures()
        with SteadyTraffic(self._api, "kill") as traffic:
            until("faults under load", lambda: self._staging.failures() > before, seconds=20)
            answer = self._kubectl("-n", NAMESPACE, "delete", "chaosexperiment", run.name)
            returned = datetime.now(UTC)
            self._ledger.show(f"kubectl delete chaosexperiment {run.name}", answer.stdout)
            await_rollout(self._ground.cluster, NAMESPACE, "api")
            seen = traffic.account.sent
            until("traffic after the rollout", lambda: traffic.account.sent >= seen + 50, seconds=20)
        self._settle()
        last = self._staging.last_injected_at()
        late = (last - returned).total_seconds() if last else 0.0
        self._ledger.promise(
            "The last fault comes within a second of the delete's return",
            late < 1.0,
            f"last fault {abs(late):.2f} s {'after' if late > 0 else 'before'} kubectl delete returned",
        )
        self._ledger.promise(
            "No request failed meanwhile, rollouts included",
            traffic.account.refused == 0,
            f"{traffic.account}",
        )
        self._stands_still("after-kill")
        self._restored("the Deployment is what it was")

    def an_experiment_expires(self, run: Run) -> list[str]:
        """Scene: nobody ends it; it ends. Returns the requests that failed."""
        self._ledger.scene(f"An experiment that nobody ends: duration {run.duration}")
        uid = self._apply(run)
        failed = self._traffic_of(uid)
        status = until(
            "the experiment to expire",
            lambda: self._finished(run.name),
            seconds=60,
        )
        expires_at = datetime.fromisoformat(status["expiresAt"])
        self._ledger.show(
            f"kubectl get chaosexperiment {run.name}",
            self._kubectl("-n", NAMESPACE, "get", "chaosexperiment", run.name).stdout,
        )
        last = self._staging.last_injected_at()
        self._ledger.promise(
            "It ends on time by itself",
            status["reason"] == "Expired" and last is not None and last <= expires_at,
            f"phase {status['phase']}, reason {status['reason']},"
            f" deadline {status['expiresAt']}, last fault {last}",
        )
        await_rollout(self._ground.cluster, NAMESPACE, "api")
        self._stands_still("after-expiry")
        self._restored("the Deployment is what it was after expiry")
        self._judged(run, failed)
        self._kubectl("-n", NAMESPACE, "delete", "chaosexperiment", run.name)
        return failed

    def the_same_seed_again(self, run: Run, failed_before: list[str]) -> None:
        """Scene: the same manifest and the same requests give the same faults; a person ends this one."""
        self._ledger.scene("The same seed again")
        uid = self._apply(run)
        failed = self._traffic_of(uid)
        self._ledger.promise(
            "The same seed gives the same failure pattern",
            failed == failed_before and bool(failed),
            f"{len(failed_before)} and {len(failed)} failed requests, "
            + ("the same ones" if failed == failed_before else "not the same ones"),
        )

    def a_person_wins(self, run: Run) -> None:
        """Scene: kubectl set env, the other kill switch; what the person set stays."""
        self._ledger.scene("A person overrides it by hand")
        answer = self._kubectl("-n", NAMESPACE, "set", "env", "deployment/api", "CHAOS_ENABLED=false")
        self._ledger.show("kubectl set env deployment/api CHAOS_ENABLED=false", answer.stdout)
        status = until("the experiment to end", lambda: self._finished(run.name), seconds=30)
        await_rollout(self._ground.cluster, NAMESPACE, "api")
        left = chaos_environment(self._staging.get("deployment", "api"))
        self._ledger.promise(
            "A person always wins: the experiment ends and the value stays",
            left == {"CHAOS_ENABLED": "false"},
            f"reason {status['reason']}; env now {left}",
        )
        self._stands_still("after-override")
        self._kubectl("-n", NAMESPACE, "delete", "chaosexperiment", run.name)
        self._kubectl("-n", NAMESPACE, "set", "env", "deployment/api", "CHAOS_ENABLED-")
        await_rollout(self._ground.cluster, NAMESPACE, "api")

    # -- what several scenes do -----------------------------------------------------------------

    def _apply(self, run: Run) -> str:
        manifest = experiment(run.name, rate=str(run.rate), seed=run.seed, duration=run.duration)
        answer = self._kubectl("apply", "-f", "-", input=manifest)
        self._ledger.show("kubectl apply -f experiment.yaml", answer.stdout)
        until("the experiment to run", lambda: self._phase(run.name) == "Running", seconds=30)
        await_rollout(self._ground.cluster, NAMESPACE, "api")
        uid: str = self._staging.get("chaosexperiment", run.name)["metadata"]["uid"]
        self._ledger.show(
            f"kubectl get chaosexperiment {run.name}",
            self._kubectl("-n", NAMESPACE, "get", "chaosexperiment", run.name).stdout,
        )
        return uid

    def _traffic_of(self, uid: str) -> list[str]:
        ids = request_ids("replay", 120)
        account = create_listings(self._api, ids)
        self._settle()
        failed = self._staging.failed_request_ids(uid)
        self._ledger.say(
            f"{account.sent} requests, {len(failed)} shadow writes made to fail: {pattern(ids, failed)}"
        )
        return failed

    def _phase(self, name: str) -> str:
        found = self._staging.find("chaosexperiment", name) or {}
        return str(found.get("status", {}).get("phase", ""))

    def _finished(self, name: str) -> dict[str, Any] | None:
        found = self._staging.find("chaosexperiment", name) or {}
        status: dict[str, Any] = found.get("status", {})
        return status if status.get("phase") == "Finished" else None

    def _judged(self, run: Run, failed: list[str]) -> None:
        verdict = until("the verdict", lambda: self._verdict(run.name), seconds=60)
        self._ledger.show(
            f"kubectl get chaosexperiment {run.name} -o jsonpath={{.status.verdict}}", json.dumps(verdict)
        )
        account = verdict.get("account", {})
        self._ledger.promise(
            "It ends with a verdict, from the service's own account of it",
            verdict["result"] == "Passed" and account["injected"] == len(failed),
            f"{verdict['result']}, {verdict['reason']}: {account.get('injected')} of {len(failed)} faults"
            f" accounted for, {account.get('unexplained')} discrepancies unexplained,"
            f" {account.get('primaryErrors')} primary errors",
        )

    def _verdict(self, name: str) -> dict[str, Any] | None:
        found = self._staging.find("chaosexperiment", name) or {}
        verdict: dict[str, Any] | None = found.get("status", {}).get("verdict")
        return verdict

    def _settle(self) -> None:
        until(
            "the shadow writes to settle",
            lambda: self._staging.outbox_pending() == 0,
            seconds=20,
            interval=0.05,
        )

    def _stands_still(self, run: str) -> None:
        before = self._staging.failures()
        account = create_listings(self._api, request_ids(run, 100))
        self._settle()
        after = self._staging.failures()
        on = sum(bool(document["chaos"]["enabled"]) for document in self._staging.health())
        self._ledger.promise(
            "Injected faults stand still afterwards",
            after == before and on == 0 and account.refused == 0,
            f"{account.sent} more requests, {after - before} more faults, {on} pods with chaos enabled",
        )

    def _restored(self, text: str) -> None:
        now = self._staging.get("deployment", "api")["spec"]["template"]
        self._ledger.promise(
            f"Restored: {text}",
            now == self._template_before,
            "pod template identical to the one before" if now == self._template_before else f"now {now}",
        )

    def _verify(self, name: str) -> dict[str, int]:
        job = f"verify-{name}"
        self._kubectl("-n", NAMESPACE, "create", "job", job, "--from=cronjob/shadow-discrepancy-verifier")
        self._kubectl("-n", NAMESPACE, "wait", "--for=condition=complete", f"job/{job}", "--timeout=60s")
        log = self._kubectl("-n", NAMESPACE, "logs", f"job/{job}").stdout
        # The log holds a line for each new discrepancy, and the report.
        line = next(line for line in reversed(log.splitlines()) if '"runId"' in line)
        self._ledger.show(f"kubectl create job {job} --from=cronjob/shadow-discrepancy-verifier", line)
        report: dict[str, Any] = json.loads(line)
        return {"open": int(report["open"]), "unexplained": int(report["unexplained"])}


def planned_faults(run: Run, ids: list[str]) -> list[str]:
    """The request ids that the seed makes fail, computed without the service."""
    return [
        request_id
        for request_id in ids
        if shadowfault.draw(run.seed, ENTITY, "create", request_id, 0) < run.rate
    ]


def pattern(ids: list[str], failed: list[str]) -> str:
    """The failure pattern of the first 60 requests: x failed, . passed."""
    broken = set(failed)
    return "".join("x" if request_id in broken else "." for request_id in ids[:60])
