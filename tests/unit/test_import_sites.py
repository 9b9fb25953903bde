"""Infrastructure of other tools becomes sites that a workspace takes; what cannot be read is told by file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from groundplan.catalog.imports.accelerators import instance_accelerators, product_accelerator
from groundplan.catalog.imports.focus import import_focus
from groundplan.catalog.imports.inventory import import_inventory
from groundplan.catalog.imports.kubernetes import import_kubernetes
from groundplan.catalog.imports.machines import ImportedSites
from groundplan.catalog.imports.terraform import import_terraform
from groundplan.catalog.loader import load_files
from groundplan.catalog.model import SiteDoc
from groundplan.cli.main import app
from groundplan.core.errors import GroundplanError, Invalid

STATE = {
    "format_version": "1.0",
    "values": {
        "root_module": {
            "resources": [
                {"address": "aws_instance.big", "type": "aws_instance", "mode": "managed",
                 "values": {"instance_type": "p5.48xlarge", "availability_zone": "eu-north-1a"}},
                {"address": "aws_s3_bucket.b", "type": "aws_s3_bucket", "mode": "managed", "values": {}},
            ],
            "child_modules": [{
                "resources": [
                    {"address": "module.a.azurerm_linux_virtual_machine.vm", "type": "azurerm_linux_virtual_machine",
                     "mode": "managed", "values": {"size": "Standard_NC24ads_A100_v4", "location": "Sweden Central"}},
                    {"address": "module.a.google_compute_instance.g", "type": "google_compute_instance",
                     "mode": "managed", "values": {"machine_type": "n1-standard-8", "zone": "us-central1-a",
                                                   "guest_accelerator": [{"type": "nvidia-l4", "count": 2}]}},
                ]
            }],
        }
    },
}  # fmt: skip


def sites(found: ImportedSites) -> dict[str, SiteDoc]:
    """What a workspace makes of it."""
    company = "kind: company\nname: acme\nformat: 1\n"
    return load_files({"acme.yaml": company, "sites.yaml": found.text}).sites


def test_a_terraform_state_becomes_sites_with_their_hardware() -> None:
    found = import_terraform(json.dumps(STATE, indent=1), "infra.json")
    made = sites(found)
    assert set(made) == {"aws-eu-north-1", "azure-swedencentral", "gcp-us-central1"}
    first = made["aws-eu-north-1"]
    assert (first.jurisdiction, first.hosting.region) == ("EU", "aws:eu-north-1")
    assert [(h.type, h.count) for h in first.hosting.hardware] == [("h100-sxm", 8)]
    assert [(h.type, h.count) for h in made["gcp-us-central1"].hosting.hardware] == [("l4", 2)]
    assert found.others == {"aws_s3_bucket": 1} and found.units == 11
    assert found.findings[0].where.line > 1


NODES = {
    "kind": "List",
    "items": [
        {"kind": "Node", "metadata": {"name": "gpu-1", "labels": {"nvidia.com/gpu.product": "NVIDIA-L40S",
                                                                 "nvidia.com/gpu.memory": "46068"}},
         "spec": {}, "status": {"capacity": {"nvidia.com/gpu": "4"}}},
        {"kind": "Node", "metadata": {"name": "gpu-2", "labels": {
            "topology.kubernetes.io/region": "europe-west4", "node.kubernetes.io/instance-type": "a3-highgpu-8g"}},
         "spec": {"providerID": "gce://p/z/n"}, "status": {"capacity": {"nvidia.com/gpu": "8"}}},
        {"kind": "Node", "metadata": {"name": "cpu-1", "labels": {}}, "spec": {}, "status": {"capacity": {"cpu": "8"}}},
    ],
}  # fmt: skip


def test_kubernetes_nodes_become_sites() -> None:
    found = import_kubernetes(json.dumps(NODES), "nodes.json")
    made = sites(found)
    assert made["cluster"].type == "private" and made["cluster"].jurisdiction == "XX"
    assert made["cluster"].hosting.hardware[0].memory == 45 * 10**9
    assert made["gcp-europe-west4"].jurisdiction == "EU" and found.others == {"nodes without accelerator": 1}
    needed = [finding for finding in found.findings if finding.state == "needed"]
    assert [finding.what for finding in needed] == ["site cluster"]


INVENTORY = """site,type,jurisdiction,region,hardware,count,memory_gb,watts,purchase_usd,life_years,usd_hour
Rack 1,private,SE,eu-north,NVIDIA L40S,2,48,350,9500,4,
Line 3,edge,SE,eu-north,jetson-orin,2,64,60,2200,5,
Rented,cloud,EU,aws:eu-north-1,p5.48xlarge,1,,,,,55.04
"""


def test_an_inventory_becomes_sites_with_what_was_paid() -> None:
    made = sites(import_inventory(INVENTORY, "machines.csv"))
    rack = made["rack-1"].hosting.hardware[0]
    assert rack.owned is not None and rack.owned.purchase == 9500 * 10**12 and rack.owned.life == 1460 * 86_400_000
    assert made["line-3"].type == "edge" and made["rented"].hosting.hardware[0].count == 8
    with pytest.raises(Invalid) as refused:
        import_inventory(INVENTORY.replace("9500", "dear").replace("SE,eu-north,jetson", "se,eu-north,jetson"), "m.csv")
    assert [str(problem.where) for problem in refused.value.problems] == ["m.csv:2:1", "m.csv:3:1"]


def test_a_focus_bill_gives_what_an_hour_really_cost() -> None:
    bill = (
        "ServiceProviderName,RegionId,SkuMeter,ConsumedQuantity,ConsumedUnit,EffectiveCost,BillingCurrency\n"
        "Amazon Web Services,eu-north-1,EUN1-BoxUsage:p5.48xlarge,10,Hours,440,USD\n"
        "Amazon Web Services,eu-north-1,EUN1-BoxUsage:p5.48xlarge,10,Hours,360,USD\n"
        "Amazon Web Services,eu-north-1,Storage,10,GB,4,USD\n"
        "Amazon Web Services,eu-north-1,EUN1-BoxUsage:p5.48xlarge,10,Hours,360,EUR\n"
    )
    found = import_focus(bill, "bill.csv")
    hardware = sites(found)["aws-eu-north-1"].hosting.hardware[0]
    assert hardware.type == "h100-sxm" and hardware.on_demand == 5 * 10**12
    assert found.others == {"rows without accelerator hours": 1, "rows in EUR": 1}


@pytest.mark.parametrize("read", [import_terraform, import_kubernetes, import_inventory, import_focus])
@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "a: b", '{"items": 3}', '{"values": {"root_module": []}}', "x" * 100]
)
def test_what_is_something_else_is_refused_in_words(read: object, text: str) -> None:
    with pytest.raises(GroundplanError) as refused:
        read(text, "file")  # type: ignore[operator]
    assert refused.value.hint


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["values", "root_module", "resources", "type", "items", "kind", "metadata", "labels", "status"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
@settings(max_examples=150, deadline=None)
def test_no_document_breaks_an_import(value: object) -> None:
    for read in (import_terraform, import_kubernetes):
        try:
            read(json.dumps(value), "f")
        except GroundplanError as error:
            assert error.hint


def test_the_command_writes_a_file_once(tmp_path: Path) -> None:
    given_, to = tmp_path / "machines.csv", tmp_path / "sites.yaml"
    given_.write_text(INVENTORY)
    run = CliRunner().invoke
    done = run(app, ["import", "inventory", str(given_), "--to", str(to)])
    assert done.exit_code == 0 and "3 sites, 12 units" in done.output and "kind: site" in to.read_text()
    assert run(app, ["import", "inventory", str(given_), "--to", str(to)]).exit_code != 0


def test_instances_and_products_are_known_by_their_names() -> None:
    assert instance_accelerators("g6e.12xlarge") == ("l40s", 4) and instance_accelerators("a2-highgpu-4g") == (
        "a100",
        4,
    )
    assert instance_accelerators("m5.large") is None and product_accelerator("NVIDIA-H100-80GB-HBM3") == "h100-sxm"
    assert product_accelerator("Tesla-T4") is None
