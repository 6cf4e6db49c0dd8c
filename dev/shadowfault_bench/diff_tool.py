"""Run by the Python of the other tools' environment: one comparison, timed without start-up and imports.

Reads a document from standard input, for URLs hold passwords; writes one to standard output.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module, metadata
from typing import Any


def compare(task: dict[str, Any]) -> dict[str, Any]:
    """Compare one table of two databases: how long it took, and the keys of the rows that differ."""
    module = import_module(task["module"])
    if hasattr(module, "disable_tracking"):
        module.disable_tracking()
    began = time.perf_counter()
    tables = [
        module.connect_to_table(
            url,
            task["table"],
            task["key"],
            thread_count=task["threads"],
            extra_columns=tuple(task["columns"]),
        )
        for url in task["urls"]
    ]
    differences = list(
        module.diff_tables(
            *tables,
            threaded=True,
            max_threadpool_size=task["threads"],
            bisection_factor=task["factor"],
        )
    )
    return {
        "seconds": time.perf_counter() - began,
        "keys": sorted({row[0] for _, row in differences}),
        "version": metadata.version(task["distribution"]),
    }


if __name__ == "__main__":
    json.dump(compare(json.load(sys.stdin)), sys.stdout)
