"""A worker that stands still for a moment under half load, and how soon it answers everything again.

    benchmarks/gateway_standstill.py --rate 4000 --still 3 --seconds 40 --json

The worker is stopped (SIGSTOP) five seconds after the load began, and goes on `--still` seconds later. Prints how many
calls were answered and refused in each second, and how long they took inside the gateway, from the ledger. Calls that
waited in the sockets of a stopped worker have not arrived for it, so that wait is in the generator's figures only.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.gateway_bed import HERE, Installation, run_load, wait_for_shipper

from groundplan.core.database import database_url

BEFORE_S = 5.0
"""Load before the worker is stopped."""
_BY_SECOND = """SELECT date_trunc('second', at)::text AS second, count(*) FILTER (WHERE status = 'ok'),
    count(*) FILTER (WHERE status <> 'ok'), round(percentile_disc(0.99) WITHIN GROUP (ORDER BY duration_ms)::numeric, 1)
  FROM call GROUP BY 1 ORDER BY 1"""


def measure(rate: float, still: float, seconds: float) -> dict[str, Any]:
    """The figures of one run. Calls by second: [time, answered, refused, p99 in the gateway in ms]."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="standstill-")))
        installation = Installation(stack, folder)
        installation.start_database()
        installation.spawn(
            "upstream", sys.executable, str(HERE / "gateway_upstream.py"), "--port", str(installation.upstream_port)
        )
        installation.spawn(
            "shipper", sys.executable, "-m", "groundplan.gateway.journal.shipper", "--home", str(installation.home.root)
        )
        installation.start_worker()
        stop = threading.Thread(target=_stop_for, args=(installation.pids["worker"][0], still))
        stop.start()
        load = run_load(installation.port, "--conc", "16", "--rate", str(rate), "--secs", str(seconds))
        stop.join()
        wait_for_shipper(installation.pids["shipper"])
        with psycopg.connect(database_url(installation.home, installation.settings, "owner")) as connection:
            rows = connection.execute(_BY_SECOND).fetchall()
    return {"rate": rate, "still_s": still, "load": load, "by_second": [[str(cell) for cell in row] for row in rows]}


def _stop_for(pid: int, seconds: float) -> None:
    time.sleep(BEFORE_S)
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=4000.0, help="requests a second")
    parser.add_argument("--still", type=float, default=3.0, help="seconds for which the worker is stopped")
    parser.add_argument("--seconds", type=float, default=40.0, help="duration of the load")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = measure(arguments.rate, arguments.still, arguments.seconds)
    if arguments.json:
        print(json.dumps(figures))
        return 0
    for row in figures["by_second"]:
        print(*row, sep="\t")
    print(f"answered {figures['load']['ok']}, refused {figures['load']['errors']}, p99 {figures['load']['p99_ms']} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
