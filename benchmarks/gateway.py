"""The cost of the gateway, measured from outside on a real installation: PostgreSQL, shipper, workers with their
journals.

    python benchmarks/gateway.py [--json] [--seconds 4] [--cache] [--long 200000] [--all] [--peer 'NAME=COMMAND']...

With `--all`, or any `--peer`, everything is measured. Runs `gateway_suite` from any current folder.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    runpy.run_module("benchmarks.gateway_suite", run_name="__main__")
