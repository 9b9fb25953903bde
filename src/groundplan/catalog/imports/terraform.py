"""`terraform show -json` (state or plan; OpenTofu's is the same) -> sites with their hardware. Reads text only."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from groundplan.catalog.imports.accelerators import instance_accelerators, product_accelerator
from groundplan.catalog.imports.machines import MAX_MACHINES, ImportedSites, Machine, build_sites, line_of
from groundplan.catalog.imports.naming import slug
from groundplan.core.errors import Invalid, Where

_TYPES: dict[str, tuple[str, str, str]] = {
    "aws_instance": ("aws", "instance_type", "availability_zone"),
    "aws_eks_node_group": ("aws", "instance_types", "region"),
    "azurerm_linux_virtual_machine": ("azure", "size", "location"),
    "azurerm_kubernetes_cluster_node_pool": ("azure", "vm_size", "location"),
    "azurerm_linux_virtual_machine_scale_set": ("azure", "sku", "location"),
    "google_compute_instance": ("gcp", "machine_type", "zone"),
    "google_container_node_pool": ("gcp", "machine_type", "location"),
}
_DEEPEST = 30


def import_terraform(text: str, name: str) -> ImportedSites:
    """Sites with the accelerators of all resources. Raises `Invalid`."""
    try:
        state = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _not_terraform(name) from error
    module = None
    if isinstance(state, dict):
        module = _block_at(state, "planned_values" if state.get("planned_values") else "values").get("root_module")
    if not isinstance(module, dict):
        raise _not_terraform(name)
    machines: list[Machine] = []
    others: Counter[str] = Counter()
    for resource in _resources(module, 0):
        kind = str(resource.get("type"))
        found = _machine(resource, kind, text, name) if kind in _TYPES else None
        if found is not None and len(machines) < MAX_MACHINES:
            machines.append(found)
        elif resource.get("mode", "managed") == "managed":
            others[kind] += 1
    return build_sites(machines, (), dict(others), name)


def _not_terraform(name: str) -> Invalid:
    return Invalid(
        f"{name} is not what `terraform show -json` writes",
        code="import_terraform",
        hint="Run `terraform show -json > infra.json`, or `terraform show -json PLAN`, and name that file.",
        where=name,
    )


def _resources(module: Mapping[str, Any], depth: int) -> Iterator[Mapping[str, Any]]:
    if depth > _DEEPEST:
        return
    yield from _mappings_in(module.get("resources"))
    for child in _mappings_in(module.get("child_modules")):
        yield from _resources(child, depth + 1)


def _mappings_in(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _machine(resource: Mapping[str, Any], kind: str, text: str, name: str) -> Machine | None:
    provider, type_key, place_key = _TYPES[kind]
    values = _block_at(resource, "values")
    instance = _first_text(values.get(type_key)) or _first_text(_block_at(values, "node_config").get(type_key))
    accelerator = _block_at(values, "guest_accelerator") or _block_at(
        _block_at(values, "node_config"), "guest_accelerator"
    )
    hardware, each = instance_accelerators(instance) or ("", 0)
    if accelerator.get("type"):
        hardware, each = product_accelerator(str(accelerator["type"])) or "", _count_or_one(accelerator.get("count"))
    if not hardware:
        return None
    scaling = _block_at(values, "scaling_config")
    many = scaling.get("desired_size", values.get("node_count", values.get("instances", 1)))
    place = str(values.get(place_key) or values.get("availability_zone") or values.get("location") or "")
    region = f"{provider}:{_region(provider, place)}" if place else None
    where = Where(name, line_of(text, json.dumps(str(resource.get("address", "")))))
    return Machine(slug(region or provider, "site"), "cloud", hardware, each * _count_or_one(many), where, region)


def _region(provider: str, place: str) -> str:
    """`eu-north-1a` -> `eu-north-1`, `europe-west4-b` -> `europe-west4`, `Sweden Central` -> `swedencentral`."""
    if provider == "azure":
        return place.lower().replace(" ", "")
    if provider == "gcp":
        parts = place.split("-")
        return "-".join(parts[:2]) if len(parts) > 2 else place
    return place.rstrip("abcdef") if place[-1:].isalpha() else place


def _block_at(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The block at a key, which Terraform may write as a list of one."""
    found = values.get(key)
    found = found[0] if isinstance(found, list) and found else found
    return found if isinstance(found, dict) else {}


def _first_text(value: object) -> str:
    value = value[0] if isinstance(value, list) and value else value
    return value if isinstance(value, str) else ""


def _count_or_one(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 1_000_000 else 1
