"""The end-to-end suite: `make e2e`. One cluster, one image, one release for the whole run.

E2E_CLUSTER names an existing kind cluster to use instead of a new one; E2E_KEEP=1 leaves a new one behind;
E2E_IMAGE takes an image that is there already; KIND_NODE_IMAGE chooses the node image of a new cluster.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from shadowfault_testing.artifacts import collect
from shadowfault_testing.kind import PREFIX, Kind, require_tools, run
from shadowfault_testing.product import KIND, Product

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHECKOUT = Path(__file__).parents[2]
_ARTIFACTS = _CHECKOUT / "dist" / "e2e"
_POSTGRES = "postgres:17"


@pytest.fixture(scope="session")
def image() -> str:
    """The image under test, built from the checkout unless E2E_IMAGE names one."""
    given = os.environ.get("E2E_IMAGE")
    if given:
        return given
    require_tools()
    sys.stderr.write("e2e: building the image\n")
    run(["docker", "build", "--tag", "shadowfault:e2e", str(_CHECKOUT)], seconds=1200)
    # A tag of its content, for a cluster that has an older one.
    identity = run(["docker", "inspect", "--format", "{{.Id}}", "shadowfault:e2e"]).stdout.strip()
    tag = f"shadowfault:e2e-{identity.removeprefix('sha256:')[:12]}"
    run(["docker", "tag", "shadowfault:e2e", tag])
    return tag


@pytest.fixture(scope="session")
def kind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kind]:
    """The cluster: a new one, or the one E2E_CLUSTER names."""
    require_tools()
    kubeconfig = tmp_path_factory.mktemp("kind") / "kubeconfig"
    existing = os.environ.get("E2E_CLUSTER")
    if existing:
        yield Kind.attach(existing, kubeconfig)
        return
    made = Kind.create(f"{PREFIX}{secrets.token_hex(3)}", kubeconfig)
    try:
        yield made
    finally:
        if os.environ.get("E2E_KEEP", "0") in {"", "0"}:
            made.delete()
        else:
            sys.stderr.write(f"e2e: kept; go on with E2E_CLUSTER={made.name}\n")


@pytest.fixture(scope="session")
def product(kind: Kind, image: str) -> Product:
    """The product, installed by Helm with the bundled databases."""
    kind.load(image, _POSTGRES)
    installed = Product(kind, image)
    sys.stderr.write("e2e: helm install\n")
    try:
        installed.install()
    except BaseException:
        collect(kind, _ARTIFACTS / "install")
        raise
    return installed


@pytest.fixture
def staging(product: Product) -> Product:
    """The product at rest: no experiment, and all pods up to date."""
    product.kubectl("delete", KIND, "--all", "--timeout=90s")
    product.kubectl("set", "env", "deployment/api", "CHAOS_ENABLED-", "CHAOS_FAIL_RATE-")
    product.rolled_out()
    return product


@pytest.fixture
def report(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Any:
    """Say what was observed, in the run's own output."""

    def say(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n    {request.node.name}: {text}\n")

    return say


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """A failed test leaves a folder with logs, Events, objects and evidence."""
    outcome = yield
    if outcome.failed and outcome.when == "call":
        product = getattr(item, "funcargs", {}).get("product") or getattr(item, "funcargs", {}).get("staging")
        if isinstance(product, Product):
            folder = _ARTIFACTS / item.name.replace("/", "_")
            collect(product.kind, folder)
            outcome.sections.append(("e2e", f"logs, Events, objects and evidence are in {folder}"))
    return outcome
