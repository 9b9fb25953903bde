"""Doctor says whether what is declared for traces and metrics can be used."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tests.integration.nursery import run_command


def checks(tmp_path: Path, **environment: str) -> dict[str, tuple[str, str]]:
    done = run_command(("doctor", "--home", str(tmp_path / "home"), "--json"), {**os.environ, **environment}, 60)
    found: list[dict[str, Any]] = json.loads(done.stdout)["checks"]
    return {check["name"]: (check["state"], check["message"]) for check in found}


def test_references_that_cannot_be_read_are_told_without_their_value(tmp_path: Path) -> None:
    good = tmp_path / "token"
    good.write_text("a-secret\n")
    found = checks(
        tmp_path,
        GROUNDPLAN_METRICS_TOKEN=f"file:{good}",
        GROUNDPLAN_OTLP_URL="http://127.0.0.1:4318/v1/traces",
        GROUNDPLAN_OTLP_HEADERS=f"file:{tmp_path / 'missing'}",
    )
    assert found["metrics"][0] == "ok" and "a-secret" not in str(found)
    assert found["traces"][0] == "bad" and "cannot be read" in found["traces"][1]


def test_nothing_is_said_where_nothing_is_declared(tmp_path: Path) -> None:
    assert not {"metrics", "traces"} & set(checks(tmp_path))
