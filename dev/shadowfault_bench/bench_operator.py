"""Many experiments on many Deployments: how fast they begin and end, and what the operator takes for it.

The Deployments have no pods and no controller: what is measured is the operator and the API server it talks
to. The latencies of one experiment stand beside those of a bare kopf handler (bare_handler.py) and of a bare
PATCH, all in the same run.
"""

from __future__ import annotations

import json
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

import httpx
import psutil

from shadowfault_bench import bare_handler
from shadowfault_bench.harness import Bound
from shadowfault_cluster import Cluster
from shadowfault_demo import ground
from shadowfault_testing.api import APPLY, Api, connection_info, deployments, eventually, experiments
from shadowfault_testing.objects import container, deployment, experiment
from shadowfault_testing.operator import OperatorProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shadowfault_bench.harness import Bench

_EXPERIMENTS: Final = 1000
_NAMESPACES: Final = 20
# Of a human's command line and a script's, not of a load test: how many creates are under way at once.
_CLIENTS: Final = 4
_REST_SECONDS: Final = 30
_RESYNC_SECONDS: Final = 300
_SAMPLES: Final = 5
# Requests in three seconds.
_FEW: Final = 15
# Seconds that the whole may take.
_LONGEST: Final = 3600
_MEGABYTE: Final = 1e6
_BARE: Final = f"{bare_handler.PLURAL}.{bare_handler.GROUP}"
_BARE_CRD: Final = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": _BARE},
    "spec": {
        "group": bare_handler.GROUP,
        "scope": "Namespaced",
        "names": {"kind": "Bare", "plural": bare_handler.PLURAL, "singular": "bare"},
        "versions": [
            {
                "name": bare_handler.VERSION,
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "properties": {"target": {"type": "string"}}},
                            "status": {
                                "type": "object",
                                "x-kubernetes-preserve-unknown-fields": True,
                                "properties": {"phase": {"type": "string"}},
                            },
                        },
                    }
                },
            }
        ],
    },
}


def run(bench: Bench) -> None:
    """Measure on a local cluster of its own."""
    count = bench.size(_EXPERIMENTS, least=10)
    bench.say(f"a local cluster with {count} Deployments that nobody runs, and the operator")
    with ExitStack() as stack:
        cluster = stack.enter_context(Cluster.start(on_progress=bench.say))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shadowfault-bench-")))
        cluster.stop_component("kube-controller-manager")
        ground.install_crds(cluster)
        api = Api(cluster.kubeconfig)
        stack.callback(api.close)
        names = [f"bench-{number}" for number in range(min(_NAMESPACES, count))]
        for name in names:
            _namespace(api, name)
        targets = [(names[number % len(names)], f"api-{number}") for number in range(count)]
        _at_once(targets, lambda target: _deploy(api, *target))
        operator = OperatorProcess(cluster.kubeconfig, "", folder / "operator.log")
        operator.start()
        stack.callback(operator.stop)
        _latencies(bench, cluster, api, folder)
        _many(bench, cluster, api, operator, targets)


# Many of them


def _many(
    bench: Bench, cluster: Cluster, api: Api, operator: OperatorProcess, targets: list[tuple[str, str]]
) -> None:
    count = len(targets)
    # Long enough for all to be injected and for a look at the operator at rest.
    duration = round(150 + count * 0.18)
    with Eye(cluster, experiments("-").replace("/namespaces/-", ""), _finished, first_only=True) as eye:
        began = time.monotonic()
        _at_once(targets, lambda target: _start(api, *target, duration=f"{duration}s"))
        created = time.monotonic() - began
        _await_phase(operator, "Running", count)
        injected = time.monotonic() - began
        bench.say(f"{count} created in {created:.1f} s, injected in {injected:.1f} s")
        bench.figure(f"until {count} experiments are injected", [injected], "s", Bound("at most", 60))
        memory = _memory(operator)
        bench.figure(
            f"memory of the operator with {count} experiments", [memory], "MB", Bound("at most", 200)
        )
        _rest(bench, api, operator, count)
        eventually("all experiments to end", lambda: len(eye.seen) == count, seconds=duration + 180)
        late = sorted(eye.seen.values())
    bench.figure(f"the last of {count} restored after its deadline", [late[-1]], "s", Bound("at most", 5))
    bench.figure("half of them within", [statistics.median(late)], "s")
    bench.figure("memory of the operator after all have ended", [_memory(operator)], "MB")


def _rest(bench: Bench, api: Api, operator: OperatorProcess, count: int) -> None:
    """Requests of the operator while all run and nothing happens, and of one look at everything."""
    # It looks once more at each target that it has changed itself.
    _await_quiet(api)
    before, began = _requests(api), time.monotonic()
    time.sleep(_REST_SECONDS)
    at_rest = (_requests(api) - before) * 60 / (time.monotonic() - began)
    operator.stop()
    # The API server talks to itself as well.
    before, began = _requests(api), time.monotonic()
    time.sleep(_REST_SECONDS)
    alone = (_requests(api) - before) * 60 / (time.monotonic() - began)
    before, began = _requests(api), time.monotonic()
    operator.start()
    _await_quiet(api)
    look = _requests(api) - before - alone * (time.monotonic() - began) / 60
    resting = at_rest - alone
    bench.figure(f"requests a minute at rest with {count} experiments, between resyncs", [resting], "")
    bench.figure("requests of a start, which looks at everything", [look], "")
    bench.figure(
        f"requests a minute at rest, a look each {_RESYNC_SECONDS} s included",
        [resting + look * 60 / _RESYNC_SECONDS],
        "",
    )


def _await_quiet(api: Api) -> None:
    """Wait until about as few requests come as the API server sends itself."""

    def quiet() -> bool:
        before = _requests(api)
        time.sleep(3)
        return _requests(api) - before < _FEW

    eventually("the operator to come to rest", quiet, seconds=180)


def _requests(api: Api) -> float:
    """How many requests the API server has answered, watches and our own looks at its metrics aside."""
    text = api._client.get("/metrics").text  # noqa: SLF001 - plain text, not JSON
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith("apiserver_request_total{")
        and 'verb="WATCH"' not in line
        and ',resource="",' not in line
    )


def _await_phase(operator: OperatorProcess, phase: str, count: int) -> None:
    line = f'shadowfault_experiments{{phase="{phase}"}}'

    def reached() -> bool:
        time.sleep(0.2)  # a scrape is work for what is measured
        return operator.metric(line) == count

    eventually(f"{count} experiments to be {phase}", reached, seconds=300)


def _memory(operator: OperatorProcess) -> float:
    """Resident, in MB, of the operator's process."""
    return float(psutil.Process(operator.pid).memory_info().rss / _MEGABYTE)


def _finished(item: dict[str, Any]) -> float | None:
    """How late it was restored, in seconds, as seen from outside; None for one that is not."""
    status = item.get("status") or {}
    if status.get("phase") != "Finished":
        return None
    return (datetime.now(UTC) - datetime.fromisoformat(status["expiresAt"])).total_seconds()


# One of them


def _latencies(bench: Bench, cluster: Cluster, api: Api, folder: Path) -> None:
    """From create and delete to the patched Deployment: the operator, a bare kopf handler, a bare PATCH."""
    namespace = f"bench-latency-{secrets.token_hex(3)}"
    _namespace(api, namespace)
    ground_api = Latency(api, namespace)
    cluster.kubectl("apply", "-f", "-", input=json.dumps(_BARE_CRD))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{_BARE}")
    with (
        _bare_operator(cluster, namespace, folder / "bare.log"),
        Eye(cluster, deployments(namespace), _carries_chaos) as eye,
    ):
        ground_api.eye = eye
        for kind in (ground_api.ours, ground_api.bare):
            kind()  # the first one finds connections closed
        ours: list[tuple[float, float]] = []
        bare: list[tuple[float, float]] = []
        bench.ratio(
            "create to patched, operator / bare kopf handler",
            lambda: _kept(ours, ground_api.ours, 0),
            lambda: _kept(bare, ground_api.bare, 0),
            Bound("at most", 2),
        )
        bench.ratio(
            "delete to patched, operator / bare kopf handler",
            lambda: _kept(ours, ground_api.ours, 1),
            lambda: _kept(bare, ground_api.bare, 1),
            Bound("at most", 2),
        )
        patch = [ground_api.patch() * 1000 for _ in range(_SAMPLES * 4)]
    for name, samples in (("operator", ours), ("bare kopf handler", bare)):
        bench.figure(f"create to patched, {name}", [one[0] * 1000 for one in samples], "ms")
        bench.figure(f"delete to patched, {name}", [one[1] * 1000 for one in samples], "ms")
    bench.figure("a bare PATCH", patch, "ms")
    create, delete = (statistics.median(one[number] for one in ours) * 1000 for number in (0, 1))
    bench.figure("create to patched, operator / bare PATCH", [create / statistics.median(patch)], "x")
    bench.figure("delete to patched, operator / bare PATCH", [delete / statistics.median(patch)], "x")


_Pair: TypeAlias = tuple[float, float]


def _kept(samples: list[_Pair], measure: Callable[[], _Pair], number: int) -> float:
    """The median of some, kept for the figures in milliseconds as well."""
    made = [measure() for _ in range(_SAMPLES)]
    samples += made
    return statistics.median(one[number] for one in made)


@dataclass
class Latency:
    """One Deployment after the other, patched by one of the three."""

    api: Api
    namespace: str
    eye: Eye | None = None
    count: int = 0

    def ours(self) -> tuple[float, float]:
        """Seconds from create, and from delete, to the patched Deployment."""
        name = self._target()
        path = experiments(self.namespace)
        return self._measure(name, path, experiment(name, target=name))

    def bare(self) -> tuple[float, float]:
        """The same of the bare handler."""
        name = self._target()
        group = f"{bare_handler.GROUP}/{bare_handler.VERSION}"
        path = f"/apis/{group}/namespaces/{self.namespace}/{bare_handler.PLURAL}"
        item = {"apiVersion": group, "kind": "Bare", "metadata": {"name": name}, "spec": {"target": name}}
        return self._measure(name, path, item)

    def patch(self) -> float:
        """Seconds that one apply patch takes."""
        name = self._target()
        entries = bare_handler.body(name, [{"name": "CHAOS_ENABLED", "value": "true"}])
        began = time.monotonic()
        self.api.request(
            "PATCH", deployments(self.namespace, name) + "?fieldManager=bench&force=true", entries, APPLY
        )
        return time.monotonic() - began

    def _target(self) -> str:
        self.count += 1
        name = f"one-{self.count}"
        _deploy(self.api, self.namespace, name)
        return name

    def _measure(self, name: str, path: str, item: dict[str, Any]) -> tuple[float, float]:
        assert self.eye is not None
        key = f"{self.namespace}/{name}"
        began = time.monotonic()
        self.api.request("POST", path, item)
        create = self.eye.wait(key, True) - began
        settled = f"{path}/{name}"
        eventually("it to have come to rest", lambda: self._phase(settled) == "Running")
        began = time.monotonic()
        self.api.request("DELETE", settled)
        delete = self.eye.wait(key, False) - began
        eventually("it to be gone", lambda: self.api.find(settled) is None)
        return create, delete

    def _phase(self, path: str) -> str | None:
        return ((self.api.find(path) or {}).get("status") or {}).get("phase")


@contextmanager
def _bare_operator(cluster: Cluster, namespace: str, log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "shadowfault_bench.bare_handler", namespace],
            env={**cluster.environment(), "KUBECONFIG": str(cluster.kubeconfig)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


# What both stand on


@dataclass
class Eye:
    """Watches a path of the API server: what `look` says of each object, and since when.

    A context manager; `seen` has the newest by namespace/name, the first where only that counts, and nothing
    of objects `look` says None of.
    """

    cluster: Cluster
    path: str
    look: Callable[[dict[str, Any]], Any]
    first_only: bool = False
    seen: dict[str, Any] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._at: dict[str, float] = {}
        self._news = threading.Condition()
        self._open = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        assert self._open.wait(30)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._end.set()

    def wait(self, key: str, value: object) -> float:
        """When, on the monotonic clock, it came to be so."""
        with self._news:
            assert self._news.wait_for(lambda: self.seen.get(key) == value, 60), (key, value)
            return self._at[key]

    def _watch(self) -> None:
        info = connection_info(self.cluster.kubeconfig)
        params = {"watch": "true", "timeoutSeconds": str(_LONGEST)}
        with (
            suppress(httpx.HTTPError),  # the cluster has gone, and with it what there is to see
            httpx.Client(
                base_url=info.server, verify=info.as_ssl_context(), timeout=_LONGEST, trust_env=False
            ) as client,
            client.stream("GET", self.path, params=params) as answer,
        ):
            self._open.set()
            for line in answer.iter_lines():
                if self._end.is_set():
                    return
                self._note(json.loads(line)["object"])

    def _note(self, item: dict[str, Any]) -> None:
        value = self.look(item)
        key = f"{item['metadata']['namespace']}/{item['metadata']['name']}"
        with self._news:
            if value is None or self.seen.get(key) == value or (self.first_only and key in self.seen):
                return
            self.seen[key] = value
            self._at[key] = time.monotonic()
            self._news.notify_all()


def _carries_chaos(item: dict[str, Any]) -> bool:
    (only,) = item["spec"]["template"]["spec"]["containers"]
    return any(entry["name"] == "CHAOS_ENABLED" for entry in only.get("env", ()))


def _at_once(items: list[tuple[str, str]], work: Callable[[tuple[str, str]], object]) -> None:
    with ThreadPoolExecutor(_CLIENTS) as pool:
        list(pool.map(work, items))


def _namespace(api: Api, name: str) -> None:
    labels = {"chaos.shadowfault.dev/allowed": "true"}
    api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})


def _deploy(api: Api, namespace: str, name: str) -> None:
    body = deployment(name, containers=[container(env=[{"name": "NODE_ENV", "value": "staging"}])])
    api.request("POST", deployments(namespace) + "?fieldManager=helm", body)


def _start(api: Api, namespace: str, target: str, *, duration: str) -> None:
    api.request("POST", experiments(namespace), experiment(f"on-{target}", target=target, duration=duration))
