"""Fault injection for shadow writes: what any Python service imports. Standard library only.

injector = shadowfault.boot()          # before any port is opened
...
if injector and (fault := injector.check(Surface.SHADOW_WRITE, "Listing", "create")):
    raise InjectedFault(fault)
"""

from shadowfault.config import ChaosConfig, ConfigError, Problem
from shadowfault.decision import draw, plan
from shadowfault.guard import boot
from shadowfault.injector import Description, Fault, FaultInjector, InjectedFault
from shadowfault.surfaces import Scope, Surface, surfaces_of

__all__ = [
    "ChaosConfig",
    "ConfigError",
    "Description",
    "Fault",
    "FaultInjector",
    "InjectedFault",
    "Problem",
    "Scope",
    "Surface",
    "boot",
    "draw",
    "plan",
    "surfaces_of",
]
