"""Copy the durations of test files in the newest complete run to tests/seconds.json, so that the longest begin first.

python scripts/longest.py      after `make test`, in the same checkout
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.longest_first import CACHE_KEY, SECONDS, format_durations  # noqa: E402 -- of this checkout


def main() -> int:
    recorded = ROOT / ".pytest_cache/v" / CACHE_KEY
    if not recorded.exists():
        print("no whole run was recorded here: run `make test` first", file=sys.stderr)
        return 1
    lines = [f"{json.dumps(file)}: {took}" for file, took in format_durations(json.loads(recorded.read_text())).items()]
    SECONDS.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
