"""The shipped rules name metrics and labels that exist."""

from __future__ import annotations

import re
from pathlib import Path

from ruamel.yaml import YAML
from tests.unit.test_gateway_pipeline import Rig, rig

from groundplan.core.home import Home
from groundplan.gateway.surfaces.chat.surface import CHAT
from groundplan.gateway.surfaces.messages.surface import COUNT_TOKENS
from groundplan.gateway.surfaces.responses.count import InputTokens
from groundplan.gateway.telemetry.content_writer import ContentWriter
from groundplan.gateway.telemetry.shipper_metrics import ShipperMetrics, ShippingProgress
from groundplan.gateway.upstream.health import Health
from groundplan.ledger.rollup_store import TOOLS, is_call
from groundplan.testing.metrics import families

__all__ = ["rig"]
ROOT = Path(__file__).parents[2]
RULES = YAML(typ="safe").load((ROOT / "docs" / "prometheus-rules.yaml").read_text())["groups"][0]["rules"]
SUFFIXES = ("_bucket", "_sum", "_count")


async def test_every_metric_and_label_of_a_rule_exists(rig: Rig, tmp_path: Path) -> None:
    await rig.chat()
    shipper = ShipperMetrics(Home(tmp_path), ShippingProgress(), ContentWriter(Home(tmp_path), ""), None)
    known: dict[str, set[str]] = {"groundplan_gateway_worker_up": {"worker", "instance"}}
    for family in [*families(rig.gateway), *shipper.families()]:
        labels = {name for sample in family.samples for name, _ in sample.labels}
        labels |= {name for series in family.series for name, _ in series.labels}
        labels |= {"worker", "instance", *(("le",) if family.type == "histogram" else ())}
        for suffix in ("", *SUFFIXES) if family.type == "histogram" else ("",):
            known[family.name + suffix] = labels
    for rule in RULES:
        used = re.findall(r"groundplan_[a-z0-9_]+", rule["expr"])
        assert used, rule
        for name in used:
            assert name in known, name
        labels = set.union(*(known[name] for name in used))
        asked = re.findall(r"\{([a-z_]+)[!=]", rule["expr"])
        asked += [name for group in re.findall(r"by \(([^)]+)\)", rule["expr"]) for name in group.split(", ")]
        asked += re.findall(r"\$labels\.([a-z_]+)", str(rule.get("annotations", "")))
        assert set(asked) <= labels, rule


async def test_calls_fail_where_nobody_is_asked_too_and_not_by_what_their_callers_did(rig: Rig) -> None:
    (rule,) = [rule for rule in RULES if rule.get("alert") == "GroundplanCallsFail"]
    found = re.search(r'\{status=~"([^"]+)",code!~"([^"]+)",endpoint!~"([^"]+)"\}', rule["expr"])
    assert found
    assert ((await rig.chat()).status, (await rig.chat(n=99)).status) == (200, 400)
    rig.live.seconds = 61.1
    assert (await rig.chat()).code == "policy_lease_expired"
    (calls,) = [each for each in families(rig.gateway) if each.name == "groundplan_gateway_calls_total"]
    ended = [(labels["status"], labels["code"]) for labels in (dict(each.labels) for each in calls.samples)]
    assert len(ended) == 3
    assert [each for each in ended if re.fullmatch(found[1], each[0]) and not re.fullmatch(found[2], each[1])] == [
        ("refused", "503")
    ]
    assert re.fullmatch(found[3], CHAT.name) is None, "but no estimate, no count of tokens, and no use of a tool"
    for name in (COUNT_TOKENS.name, InputTokens.name, f"{CHAT.name}.estimate", TOOLS):
        assert re.fullmatch(found[3], name) and not is_call(name) and is_call(CHAT.name)


def test_a_deployment_that_fails_stays_in_its_alert_however_few_calls_ask_it() -> None:
    (rule,) = [rule for rule in RULES if rule.get("alert") == "GroundplanDeploymentOpen"]
    shown = re.search(r'state=~?"([^"]+)"', rule["expr"])
    health, missed = Health(), []
    for second in range(600):
        if second % 20 == 0 and health.may_attempt("a", second):
            health.record_failure("a", second)
        if second > 60 and second % 15 == 0 and not (shown and re.fullmatch(shown[1], health.states(second)["a"])):
            missed.append(second)
    assert missed == []


def test_every_alert_says_what_it_means_and_how_grave_it_is() -> None:
    alerts = [rule for rule in RULES if "alert" in rule]
    assert len(alerts) >= 7
    for alert in alerts:
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert alert["annotations"]["summary"] and alert["annotations"]["description"] and alert["for"]


def test_the_documented_metrics_are_those_that_there_are() -> None:
    text = (ROOT / "docs" / "observability.md").read_text()
    table = text[text.index("| Metric") : text.index("The shipper reports")]
    documented = {
        f"groundplan_gateway_{name}" for name in re.findall(r"`([a-z_]+)`", table.replace("groundplan_gateway_", ""))
    }
    told: set[str] = set(
        re.findall(r'f"\{_P\}([a-z_]+)"', (ROOT / "src/groundplan/gateway/telemetry/worker_families.py").read_text())
    )
    told |= set(
        re.findall(r'counter\("([a-z_]+)"', (ROOT / "src/groundplan/gateway/telemetry/worker_families.py").read_text())
    )
    missing = {f"groundplan_gateway_{name}" for name in told} - documented
    assert not missing, missing
