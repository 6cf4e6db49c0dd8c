"""`python -m shadowfault_cluster.agent --directory STATE_DIR`: the node agent process."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from shadowfault_cluster.agent.agent import Agent
from shadowfault_cluster.agent.config import AgentConfig


async def _serve(config: AgentConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await Agent(config).run(stop)


def main() -> int:
    """Run until SIGTERM; 0, or 1 with a message when the node cannot work."""
    parser = argparse.ArgumentParser(prog="python -m shadowfault_cluster.agent", description=__doc__)
    parser.add_argument("--directory", type=Path, required=True, help="the cluster's state directory")
    parser.add_argument("--verbose", action="store_true", help="log details")
    arguments = parser.parse_args()
    level = logging.DEBUG if arguments.verbose else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(_serve(AgentConfig.load(arguments.directory)))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"the node agent cannot work: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
