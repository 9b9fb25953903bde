"""Whether the names of our spans and metrics are those of OpenTelemetry's GenAI conventions, read from an archive.

    benchmarks/genai_conventions.py otel-genai-semconv-953276ff.tar.gz --json

Reads the model's YAML (metrics, registry and spans) from a tar archive; sends nothing. Names of the general conventions
(error.type, server.*, http.*) are not in such an archive and are listed separately.
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from groundplan.core.ids import new_id
from groundplan.gateway.journal.recovery import CallState, EpochState
from groundplan.gateway.telemetry.conventions import OPERATIONS, PROVIDERS
from groundplan.gateway.telemetry.genai_metrics import UNITS, GenAiMetrics
from groundplan.gateway.telemetry.spans import call_spans
from groundplan.ledger.model import Charge, Finish, Reservation, Settlement, Usage

GENERAL = ("error.", "http.", "server.")


def read_conventions(archive: Path) -> dict[str, Any]:
    """Attributes, metrics with unit and instrument, and members of enumerations."""
    known: dict[str, Any] = {"attributes": set(), "metrics": {}, "members": {}}
    with tarfile.open(archive) as tar:
        for member in tar:
            if not member.name.endswith(".yaml") or "/deprecated/" in member.name:
                continue
            file = tar.extractfile(member)
            groups = YAML(typ="safe").load(file.read().decode())["groups"] if file is not None else []
            for group in groups:
                _add_group(known, group)
    return known


def _add_group(known: dict[str, Any], group: dict[str, Any]) -> None:
    if "metric_name" in group:
        known["metrics"][group["metric_name"]] = (group["unit"], group["instrument"])
    for attribute in group.get("attributes", ()):
        if "id" in attribute:
            known["attributes"].add(attribute["id"])
            attribute_type = attribute.get("type")
            if isinstance(attribute_type, dict):
                known["members"][attribute["id"]] = {member["value"] for member in attribute_type["members"]}


def example_call() -> CallState:
    """A call with everything that a span can report."""
    state, call = EpochState(), new_id().bytes
    usage = Usage(input=9, output=5, cache_read=2, cache_write=1, reasoning=1)
    source = [("doc", "a.md", 1, 2)]
    made = ("chat.completions", "d", "s", "openai/m", 1, 5, [Charge("b", "t", 5)], False, "", True)
    state.apply(Reservation(call, 0, 1000, "w", "p", "k", *made))
    state.apply(Settlement(call, 0, 1010, 3, "failed", 503, usage, False, [], 9000, 500, 200, 4000, 0, 4100))
    steps = [("identify", 100), ("ground", 450), ("serve", 9000)]
    end = (10_000, 9_000, steps, source, False, "")
    state.apply(
        Finish(call, 1011, "w", "p", "k", "chat.completions", "failed", 503, "upstream_failed", "d", "none", 1, *end)
    )
    return next(iter(state.calls.values()))


def compare_names(known: dict[str, Any]) -> dict[str, Any]:
    """Our names that the conventions lack, by sort; none are expected."""
    call, metrics = example_call(), GenAiMetrics()
    metrics.count_call(call)
    names = {name for span in call_spans(call) for name in span.attributes}
    names |= {name for _, labels in metrics.series for name, _ in labels}
    own = {name for name in names if name.startswith("groundplan.")}
    general = {name for name in names if name.startswith(GENERAL)}
    units = {name: (unit, "histogram") for name, unit in UNITS.items()}
    return {
        "checked": len(names) + len(units),
        "unknown_attributes": sorted(names - own - general - known["attributes"]),
        "wrong_metrics": sorted(name for name, definition in units.items() if known["metrics"].get(name) != definition),
        "unknown_operations": sorted(set(OPERATIONS.values()) - known["members"]["gen_ai.operation.name"]),
        "unknown_providers": sorted(set(PROVIDERS.values()) - known["members"]["gen_ai.provider.name"]),
        "of_general_conventions": sorted(general),
        "our_own": sorted(own),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="tar archive with model/**/*.yaml of the conventions")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not arguments.archive.is_file():
        parser.error(f"{arguments.archive} is not there: name an archive of the conventions")
    comparison = compare_names(read_conventions(arguments.archive))
    wrong = [name for name in comparison if name.startswith(("unknown", "wrong")) and comparison[name]]
    print(
        json.dumps(comparison) if arguments.json else f"{comparison['checked']} names checked; wrong: {wrong or 'none'}"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
