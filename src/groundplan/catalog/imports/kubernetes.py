"""Nodes of a Kubernetes cluster (`kubectl get nodes -o json` or `-o yaml`) -> sites. Asks no cluster."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from groundplan.catalog.imports.accelerators import instance_accelerators, product_accelerator
from groundplan.catalog.imports.machines import MAX_MACHINES, ImportedSites, Machine, build_sites, line_of
from groundplan.catalog.imports.naming import slug
from groundplan.core.errors import Invalid, Where

GPU = "nvidia.com/gpu"
_PROVIDERS = {"aws": "aws", "azure": "azure", "gce": "gcp"}


def import_kubernetes(text: str, name: str) -> ImportedSites:
    """The accelerators of every node. Raises `Invalid`."""
    machines: list[Machine] = []
    others: Counter[str] = Counter()
    nodes = list(_node_objects(_parse_documents(text, name)))
    if not nodes:
        raise _no_nodes(name)
    for node in nodes:
        found = _machine(node, text, name)
        if found is None or len(machines) >= MAX_MACHINES:
            others["nodes without accelerator"] += 1
        else:
            machines.append(found)
    return build_sites(machines, (), dict(others), name)


def _no_nodes(name: str) -> Invalid:
    return Invalid(
        f"{name} holds no nodes", code="import_kubernetes",
        hint="Run `kubectl get nodes -o json > nodes.json` and name that file.", where=name,
    )  # fmt: skip


def _parse_documents(text: str, name: str) -> list[Any]:
    try:
        return [json.loads(text)]
    except ValueError:
        pass
    except RecursionError as error:
        raise _no_nodes(name) from error
    yaml = YAML(typ="safe", pure=True)
    try:
        return list(yaml.load_all(text))
    except (YAMLError, ValueError, RecursionError) as error:
        raise _no_nodes(name) from error


def _node_objects(documents: list[Any]) -> Iterator[Mapping[str, Any]]:
    for document in documents:
        if not isinstance(document, dict):
            continue
        items = document.get("items")
        for each in items if isinstance(items, list) else [document]:
            if isinstance(each, dict) and each.get("kind", "Node") == "Node" and isinstance(each.get("metadata"), dict):
                yield each


def _machine(node: Mapping[str, Any], text: str, name: str) -> Machine | None:
    metadata, status, spec = (_mapping_or_empty(node.get(key)) for key in ("metadata", "status", "spec"))
    labels = _mapping_or_empty(metadata.get("labels"))
    instance = instance_accelerators(str(labels.get("node.kubernetes.io/instance-type", "")))
    product = product_accelerator(str(labels.get("nvidia.com/gpu.product", "")))
    told = str(_mapping_or_empty(status.get("capacity")).get(GPU, ""))
    count = int(told) if told.isascii() and told.isdigit() and len(told) < 5 else instance[1] if instance else 0
    hardware = product or (instance[0] if instance else None)
    if hardware is None or count == 0:
        return None
    provider = _PROVIDERS.get(str(spec.get("providerID", "")).partition(":")[0])
    region = str(labels.get("topology.kubernetes.io/region", ""))
    where = Where(name, line_of(text, str(metadata.get("name", ""))))
    full = f"{provider}:{region.lower()}" if provider and region else None
    site = slug(full or region or "cluster", "site")
    memory = str(labels.get("nvidia.com/gpu.memory", ""))
    gigabytes = round(int(memory) / 1024) if memory.isascii() and memory.isdigit() and len(memory) < 9 else None
    return Machine(site, "cloud" if provider else "private", hardware, count, where, full, memory_gb=gigabytes)


def _mapping_or_empty(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
