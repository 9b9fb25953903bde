"""Take over what each file of tests took in the newest whole run here, so that the longest begin first.

python scripts/longest.py      after `make test`, in the same checkout
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.longest_first import NOTED, SECONDS, worth_knowing  # noqa: E402 -- of this checkout


def main() -> int:
    noted = ROOT / ".pytest_cache/v" / NOTED
    if not noted.exists():
        print("no whole run was noted here: run `make test` first", file=sys.stderr)
        return 1
    lines = [f"{json.dumps(file)}: {took}" for file, took in worth_knowing(json.loads(noted.read_text())).items()]
    SECONDS.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
