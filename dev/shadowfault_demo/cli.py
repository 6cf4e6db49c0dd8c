"""`shadowfault demo run` and `shadowfault demo down`; `make demo` and `make demo-down` call them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from shadowfault_cluster import Cluster, ClusterError, ClusterNotFoundError, controlplane_build
from shadowfault_demo import ground
from shadowfault_demo.ground import Ground
from shadowfault_demo.ledger import Ledger
from shadowfault_demo.observe import Staging
from shadowfault_demo.scenes import Run, Story

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

NAME = "demo"


@app.callback()
def demo() -> None:
    """The main job end to end on a local cluster."""


@app.command()
def run(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything running, no experiment active.")
    ] = False,
) -> None:
    """Run the demo. Exits 0 when every promise was kept, 1 when one was broken, 2 when it could not run."""
    console = Console(highlight=False)
    ledger = Ledger(console)
    try:
        controlplane_build.prepare()
        cluster = _start(ledger, keep=keep)
    except ClusterError as problem:
        sys.stderr.write(f"demo: no local cluster: {problem}\n")
        raise typer.Exit(2) from None
    finished = False
    try:
        _tell(cluster, ledger)
        finished = True
    except (ClusterError, TimeoutError, ground.NotACheckoutError) as problem:
        ledger.promise("The demo runs to its end", kept=False, observed=str(problem))
    finally:
        kept = keep and finished
        lines = _how_to_go_on(cluster) if kept else ""
        if not kept:
            _tear_down(cluster, ledger)
    status = ledger.close()
    if lines:
        # Last, bare and unwrapped: a script reads them.
        sys.stdout.write(lines)
    raise typer.Exit(status)


@app.command()
def down() -> None:
    """End what `run --keep` left running; nothing to do is no error."""
    try:
        Cluster.attach(NAME).stop()
    except ClusterNotFoundError:
        typer.echo("demo: nothing is running")
    else:
        typer.echo("demo: ended")


def _start(ledger: Ledger, *, keep: bool) -> Cluster:
    ledger.scene("A local Kubernetes: etcd, kube-apiserver, kube-controller-manager, and a node agent")
    # Without --keep the name is random, so that a demo kept from before is never met.
    cluster = Cluster.start(NAME if keep else None, on_progress=ledger.say, detach=keep)
    version = cluster.kubectl("version", "-o", "yaml").stdout
    server = version[version.index("serverVersion") :]
    git_version = next(line.split()[-1] for line in server.splitlines() if "gitVersion" in line)
    ledger.say(f"Kubernetes {git_version} at {cluster.record.apiserver}")
    return cluster


def _tell(cluster: Cluster, ledger: Ledger) -> None:
    personal = ground.personal_kubeconfigs()
    ledger.scene(
        "Installing: CRD, admission policies, operator, the service with 3 replicas, verifier CronJob"
    )
    ground.install_crds(cluster)
    ground.install_operator(cluster)
    staging = ground.install_service(cluster)
    ground.await_rollouts(cluster)
    ledger.show("kubectl get pods -A", cluster.kubectl("get", "pods", "-A").stdout)

    story = Story(Ground(cluster, staging), ledger)
    killed = Run("shadow-30pct", seed="my-test-run-123", rate=0.3, duration="10m")
    timed = Run("shadow-20pct", seed="my-test-run-456", rate=0.2, duration="12s")
    again = Run("shadow-20pct", seed=timed.seed, rate=timed.rate, duration="10m")
    story.production_is_refused()
    story.all_is_quiet_before()
    story.an_experiment_runs(killed)
    story.the_verifier_finds_it()
    story.the_evidence_is_there()
    story.delete_is_the_kill_switch(killed)
    failed = story.an_experiment_expires(timed)
    story.the_same_seed_again(again, failed)
    story.a_person_wins(again)
    ledger.promise(
        "Your own KUBECONFIG was not touched",
        ground.personal_kubeconfigs() == personal,
        ", ".join(
            f"{path}: {'absent' if digest == 'absent' else 'unchanged'}" for path, digest in personal.items()
        ),
    )


def _how_to_go_on(cluster: Cluster) -> str:
    address = Staging(cluster).service_address()
    return f"KUBECONFIG={cluster.kubeconfig}\nNAMESPACE={ground.NAMESPACE}\nAPI_URL={address}\n"


def _tear_down(cluster: Cluster, ledger: Ledger) -> None:
    ledger.scene("Tearing down")
    cookie, directory = cluster.record.id, cluster.directory
    cluster.stop()
    left = ground.processes_of(cookie)
    ledger.promise(
        "Nothing is left behind",
        kept=not directory.exists() and not left,
        observed=f"processes: {left or 'none'}, files: {'there' if directory.exists() else 'gone'}",
    )
