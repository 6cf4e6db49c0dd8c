"""The app: routes, and what is around each request."""

from __future__ import annotations

from contextlib import asynccontextmanager
from importlib import metadata
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from shadowfault_api import assembly
from shadowfault_api.engines import Engines
from shadowfault_api.http import admin, listings, operations, problems, repairs
from shadowfault_api.http.middleware import InFlight, RequestMiddleware
from shadowfault_api.lifecycle import Lifecycle
from shadowfault_api.tracing import NoTracing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shadowfault import FaultInjector
    from shadowfault_api.settings import Settings
    from shadowfault_api.tracing import Tracing


def create_app(settings: Settings, injector: FaultInjector | None, tracing: Tracing | None = None) -> FastAPI:
    """Build the app. Nothing is connected before its lifespan begins, which also migrates both databases.

    Args:
        injector: what `shadowfault.boot()` gave; None installs nothing.
        tracing: what `create_tracing` gave; None is off.

    Raises:
        KeyFileError: the key that signs evidence cannot be used.
    """
    engines = Engines.of(settings)
    path = assembly.shadow_path(settings, engines, tracing or NoTracing())
    resources = assembly.resources(settings, engines, path, injector)
    in_flight = InFlight()
    lifecycle = Lifecycle(settings, engines, path, in_flight)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await lifecycle.start(app.state.resources)
        try:
            yield
        finally:
            app.state.draining = True
            await lifecycle.stop(app.state.resources)

    app = FastAPI(
        title="Shadowfault listings",
        description="A dual write: every listing goes to a primary store and, later, to a shadow store.",
        version=metadata.version("shadowfault"),
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.resources = resources
    app.state.draining = False
    for router in (listings.router, operations.router, admin.router, repairs.router):
        app.include_router(router)
    problems.install(app)
    app.add_middleware(
        RequestMiddleware,
        metrics=resources.metrics,
        tally=resources.tally,
        draining=lambda: bool(app.state.draining),
        tracing=path.tracing,
        in_flight=in_flight,
    )
    _declare_problems(app)
    return app


def _declare_problems(app: FastAPI) -> None:
    """Put the problem document's schema beside those FastAPI collects."""
    collect = app.openapi

    def openapi() -> dict[str, Any]:
        document = collect()
        document.setdefault("components", {}).setdefault("schemas", {})["Problem"] = problems.SCHEMA
        return document

    app.openapi = openapi  # type: ignore[method-assign]
