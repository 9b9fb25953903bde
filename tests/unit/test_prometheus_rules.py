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


async def test_the_documented_metrics_are_those_that_there_are(rig: Rig, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "observability.md").read_text()
    table = text[text.index("| `calls_total`") : text.index("The shipper reports")]
    table = re.sub(r" \([^)]*\)", "", re.sub(r"\]\([^)]*\)", "]", table))  # what is in brackets names labels
    cells = [row.split("|")[1] for row in table.splitlines() if row]
    documented = {name for cell in cells for name in re.findall(r"`([a-z_]+)`", cell)}
    own = {each.name for each in families(rig.gateway) if not each.name.startswith(("process_", "groundplan_build_"))}
    assert documented == {name.removeprefix("groundplan_gateway_") for name in own}
    shipper = ShipperMetrics(Home(tmp_path), ShippingProgress(), ContentWriter(Home(tmp_path), ""), None).families()
    paragraph = text[text.index("The shipper reports") :].partition("\n")[0]
    documented = set(re.findall(r"`(?:groundplan_shipper_)?([a-z_]+_(?:seconds|total))`", paragraph))
    assert documented == {each.name.removeprefix("groundplan_shipper_") for each in shipper if "shipper" in each.name}
    others = {each.name for each in (*families(rig.gateway), *shipper) if each.name.startswith(("process_", "ground"))}
    assert all(name in text for name in others if "gateway" not in name and "shipper" not in name)
