"""Network times and costs: round trips of users, transfers of data, egress; and how fast hardware serves a model.

Pure. An unknown round trip is taken as 150 ms, and reported by the rules.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from groundplan.placement.serving.fitted import shipped_model
from groundplan.placement.serving.model import Engine, Hardware, Setting, Shape, find_hardware, find_shape
from groundplan.placement.terms import site_defaults
from groundplan.placement.terms.facts import Company, HardwareFacts, ModelFacts, OwnSpeed, SiteFacts, WorkloadFacts

UNKNOWN_ROUND_TRIP_MS = 150.0
UNDECLARED_USERS_MS = 20.0
"""the round trip of users whose region is not declared"""
TOKEN_GB = 4e-9
WEIGHTS_SHARE = 0.9
"""the fraction of memory that weights may take"""
TRIED_LOADS = (4, 16, 64)
"""concurrent requests of a replica that are tried"""


@dataclass(frozen=True, slots=True)
class Travel:
    """Network times of a workload at a site, in milliseconds."""

    round_trip: float
    moved: float
    """the time to transfer a call's data to the site"""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """How a model serves on hardware."""

    units: int
    per_unit: float
    """calls a second of one unit"""
    first_token: float
    per_token: float
    spread: float
    basis: str
    call_seconds: float = 0.0
    """seconds of a call where calls are served one by one, else 0"""


def travel_times(company: Company, w: WorkloadFacts, site: SiteFacts) -> Travel:
    """The mean round trip of users by their shares, and the time to transfer a call's data from its site."""
    total = sum(w.users.values())
    if total:
        mean = sum(share * _round_trip(site, users) for users, share in w.users.items()) / total
    else:
        mean = UNDECLARED_USERS_MS if w.data_site != site.name else 1.0
    moved = w.upload_gb + (w.data_gb if w.data_site not in (None, site.name) else 0.0)
    origin = company.sites.get(w.data_site) if w.data_site else None
    slow = [
        x.bandwidth_kbit
        for x in (origin, site)
        if x is not None and x.bandwidth_kbit and x is not _site_of_data(w, site)
    ]
    return Travel(mean, moved * 8e9 / (min(slow) * 1000) * 1000 if slow and moved else 0.0)


def _site_of_data(w: WorkloadFacts, site: SiteFacts) -> SiteFacts | None:
    """The site itself if the workload's data is there: such a call uses no uplink."""
    return site if w.data_site == site.name else None


def _round_trip(site: SiteFacts, users: str) -> float:
    found = site_defaults.round_trip(site, users)
    return UNKNOWN_ROUND_TRIP_MS if found is None else found


def network_costs(company: Company, w: WorkloadFacts, site: SiteFacts) -> dict[str, float]:
    """USD a month of egress and storage."""
    total = sum(w.users.values())
    each = sum(share * site_defaults.egress_price(site, users) for users, share in w.users.items())
    answer = w.calls_month * w.output * TOKEN_GB * (each / total if total else site.egress_usd_gb)
    stored = moved = 0.0
    origin = company.sites.get(w.data_site) if w.data_site else None
    if origin is not None and origin is not site:
        moved = (w.calls_month * w.data_gb + w.stored_gb * 0.1) * site_defaults.egress_price(origin, site)
        stored = w.stored_gb * site.storage_usd_gb
    return {"egress": answer + moved, "storage": stored}


def serving_performance(
    w: WorkloadFacts, hardware: HardwareFacts, model: ModelFacts, own: OwnSpeed | None = None
) -> ServedModel | None:
    """Units, speed and times of a model on this hardware, set right by own traffic where there was any; None where
    nothing says how fast it is."""
    found = _predicted(w, hardware, model)
    if found is None or own is None or found.call_seconds:
        return found
    first, each = found.first_token * own.first_token, found.per_token * own.per_token
    slower = (first + w.output * each) / max(found.first_token + w.output * found.per_token, 1e-9)
    return replace(
        found, first_token=first, per_token=each, per_unit=found.per_unit / slower, spread=own.spread,
        basis="own traffic",
    )  # fmt: skip


def _predicted(w: WorkloadFacts, hardware: HardwareFacts, model: ModelFacts) -> ServedModel | None:
    if model.per_call_ms is not None:
        seconds = model.per_call_ms / 1000
        return ServedModel(1, 1 / seconds, model.per_call_ms, 0.0, 1.3, "declared", seconds)
    machine, shape = _machine(hardware), shape_for(model)
    if machine is None or shape is None or model.memory_gb is None:
        return None
    units = 1
    while units * hardware.memory_gb * WEIGHTS_SHARE < model.memory_gb and units < 64:
        units *= 2
    if units > max(machine.domain, 1) and units > 8:
        return None
    return _best_load(shape, machine, model.precision, units, round(w.prompt), round(w.output), w.per_token or 100.0)


@lru_cache(maxsize=4096)
def _best_load(
    shape: Shape, machine: Hardware, precision: str, units: int, prompt: int, output: int, longest: float
) -> ServedModel | None:
    """The performance at the largest load whose time per token is at most `longest`, or at the smallest load."""
    output = max(output, 1)
    settings = [
        Setting(shape, machine, precision, "vllm", max(prompt, 1), output, load, Engine(units), rank_batch=load)
        for load in TRIED_LOADS
    ]
    found: ServedModel | None = None
    for load, answer in zip(TRIED_LOADS, shipped_model().predict_many(settings), strict=True):
        if found is not None and answer.per_token.middle > longest:
            break
        seconds = (answer.first_token.middle + output * answer.per_token.middle) / 1000
        spread = answer.first_token.high / answer.first_token.middle
        found = ServedModel(
            units, load / seconds / units, answer.first_token.middle, answer.per_token.middle, spread, answer.basis
        )
    return found


def _machine(hardware: HardwareFacts) -> Hardware | None:
    return find_hardware(hardware.type)


def shape_for(model: ModelFacts) -> Shape | None:
    """A model's known sizes, else sizes derived from the declared ones: without active parameters it is taken as
    dense."""
    known = find_shape(model.name)
    if known is not None:
        return known
    if model.total is None:
        return None
    active = model.active or model.total
    layers = model.layers or max(16, round(9 * model.total**0.5))
    hidden = max(1024, round((active * 1e9 / layers / 12) ** 0.5))
    kv = (model.kv_bytes or layers * 2048 * 2) / 2
    sparse = active < model.total * 0.9
    return Shape(
        family=model.name, total=model.total, active=active, layers=layers, hidden=hidden, kv=kv,
        experts=64 if sparse else 1, chosen=max(1, round(64 * active / model.total)) if sparse else 1,
        dense=active * 0.4 if sparse else model.total, scored=float(layers * hidden),
    )  # fmt: skip
