"""The state of a worker as metric families: reads its counters and parts, and counts nothing itself."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from groundplan.core.money import PICO
from groundplan.gateway.budgets.periods import current_key
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.files_by_id import HELD_BYTES
from groundplan.gateway.telemetry.call_counters import TOKEN_CLASSES, AttemptSeries, Histogram, TokenLabels
from groundplan.gateway.telemetry.conventions import OPERATIONS, provider_and_model
from groundplan.gateway.telemetry.exposition import Family, Labels, Sample, histogram_family, single_sample
from groundplan.gateway.upstream.health import Health
from groundplan.gateway.upstream.pressure import RANKS

_PREFIX = "groundplan_gateway_"
_CALL_LABELS = ("endpoint", "workload", "deployment")
FIRST_TOKEN = "gen_ai_server_time_to_first_token_seconds"
"""OpenTelemetry's `gen_ai.server.time_to_first_token` as Prometheus writes it: a call as its client sees it."""
_STATM = Path("/proc/self/statm")
_DESCRIPTORS = Path("/proc/self/fd")
_STATES = ("closed", "half_open", "open")
_KEY_STATES = {0: "ready", 429: "busy", 401: "refused", 403: "refused", 402: "unpaid"}
_STARTED = time.time()
_VERSION = importlib.metadata.version("groundplan")


async def gather_families(gateway: Gateway) -> list[Family]:
    """All families of the worker, in a fixed order; calls are answered between the parts."""
    found: list[Family] = []
    for part in FAMILY_GROUPS:
        found += part(gateway)
        await asyncio.sleep(0)
    return found


def _counter(name: str, help_: str, value: float | list[Sample]) -> Family:
    return _family(name, "counter", help_, value)


def _gauge(name: str, help_: str, value: float | list[Sample]) -> Family:
    return _family(name, "gauge", help_, value)


def _family(name: str, type_: str, help_: str, value: float | list[Sample]) -> Family:
    """A family of the worker; a value alone is a sample without labels."""
    return Family(f"{_PREFIX}{name}", type_, help_, value if isinstance(value, list) else [Sample([], value)])


def _histogram(name: str, help_: str, counted: Mapping[Labels, Histogram]) -> Family:
    return histogram_family(f"{_PREFIX}{name}", help_, counted)


def _samples(names: Sequence[str], counts: Mapping[Any, float]) -> list[Sample]:
    """A sample for each tuple of label values, in their order."""
    return [Sample(list(zip(names, map(str, values), strict=True)), count) for values, count in sorted(counts.items())]


def _calls(gateway: Gateway) -> list[Family]:
    counters = gateway.call_counters
    calls = {labels: series.count for labels, series in counters.calls.items()}
    answered = [(_call_labels(labels[:3]), series) for labels, series in counters.calls.items() if labels[3] == "ok"]
    duration = _merge_histograms((labels, series.duration) for labels, series in answered)
    first = _merge_histograms((labels, series.first_byte) for labels, series in answered)
    tokens = _merge_histograms((_genai_labels(labels), series) for labels, series in counters.first_tokens.items())
    saved = {(workload,): amount / PICO for workload, amount in counters.saved_picodollars.items()}
    results = ("workload", "result")
    return [
        _counter("calls_total", "Calls that have ended.", _samples((*_CALL_LABELS, "status", "code"), calls)),
        _histogram(
            "call_duration_seconds", "Time of answered calls, from their first byte in to the last out.", duration
        ),
        _histogram("first_byte_seconds", "Time of answered calls, to the first byte of the answer.", first),
        histogram_family(FIRST_TOKEN, "Time to the first chunk of calls that a model answered with a stream.", tokens),
        _counter(
            "cache_hits_total", "Calls that were answered without a model.", _samples(results, counters.cache_hits)
        ),
        _counter(
            "grounded_calls_total", "Calls for which sources were searched.", _samples(results, counters.searches)
        ),
        _counter(
            "citations_total",
            "Citations in answers, by whether their passage supports them.",
            _samples(results, counters.citations),
        ),
        _counter("cache_saved_usd_total", "What cached answers would have cost again.", _samples(("workload",), saved)),
    ]


def _call_labels(labels: tuple[str, ...]) -> Labels:
    return tuple(zip(_CALL_LABELS, labels, strict=True))


def _genai_labels(labels: TokenLabels) -> Labels:
    """Return the labels of a metric named by the conventions: their attributes, and ours."""
    endpoint, workload, name, served = labels
    provider, model = provider_and_model(served)
    return (
        ("gen_ai_operation_name", OPERATIONS.get(endpoint, endpoint)),
        ("gen_ai_provider_name", provider),
        ("gen_ai_request_model", model),
        ("workload", workload),
        ("deployment", name),
    )


def _merge_histograms(pairs: Iterable[tuple[Labels, Histogram]]) -> dict[Labels, Histogram]:
    """Return one histogram for each set of labels, without empty ones."""
    found: dict[Labels, Histogram] = {}
    own: set[Labels] = set()
    for labels, counted in pairs:
        if labels not in found:
            if any(counted.buckets):
                found[labels] = counted
        else:
            if labels not in own:
                own.add(labels)
                first, found[labels] = found[labels], Histogram()
                found[labels].add(first)
            found[labels].add(counted)
    return found


def _attempts(gateway: Gateway) -> list[Family]:
    attempts = gateway.call_counters.attempts

    def counter(name: str, help_: str, value: Callable[[AttemptSeries], float]) -> Family:
        counts = {labels: value(series) for labels, series in attempts.items()}
        return _counter(name, help_, _samples(("workload", "deployment", "outcome"), counts))

    tokens: dict[tuple[str, str, str], int] = {}
    for (workload, deployment, _), series in attempts.items():
        for token_class, count in zip(TOKEN_CLASSES, series.tokens, strict=True):
            if count:
                key = (workload, deployment, token_class)
                tokens[key] = tokens.get(key, 0) + count
    counted = _samples(("workload", "deployment", "class"), tokens)
    duration = _merge_histograms(
        ((("deployment", name),), series.duration) for (_, name, _), series in attempts.items()
    )
    queue = _merge_histograms(((("workload", name),), series.queue) for (name, _, _), series in attempts.items())
    return [
        counter("attempts_total", "Attempts at a deployment that have ended.", lambda series: series.count),
        counter("cost_usd_total", "Cost of attempts.", lambda series: series.cost / PICO),
        counter(
            "estimated_attempts_total",
            "Attempts whose provider reported no usage: the gateway counted it.",
            lambda series: series.estimated,
        ),
        _counter("tokens_total", "Tokens by class; input and output contain the others.", counted),
        _histogram("attempt_duration_seconds", "Time of attempts at a deployment.", duration),
        _histogram("queue_seconds", "Time from the first byte of a call to its first attempt.", queue),
    ]


def _breakers(gateway: Gateway, health: Health, names: Iterable[str]) -> list[Sample]:
    broken = health.states(gateway.loop.time())
    return [
        Sample([("deployment", name), ("state", state)], int(broken.get(name, "closed") == state))
        for name in names
        for state in _STATES
    ]


def _state(gateway: Gateway) -> list[Family]:
    catalog, live = gateway.live.catalog, gateway.live
    names = [d.name for d in catalog.blueprint.deployments] if catalog else []
    flexible = [d.name for d in catalog.blueprint.deployments if d.rates.flex is not None] if catalog else []
    word = "1 for the current state of the breaker of a deployment"
    return [
        _gauge("breaker_state", f"{word}, as seen by a worker.", _breakers(gateway, gateway.health, names)),
        _gauge(
            "flex_breaker_state",
            f"{word} for calls at the service tier flex.",
            _breakers(gateway, gateway.flex_health, flexible),
        ),
        _gauge("ready", "1 while the worker accepts new calls.", int(gateway.ready)),
        _gauge("running", "Calls that have not ended.", gateway.running_calls),
        _gauge("streams", "Streams that are open.", gateway.call_counters.open_streams),
        _gauge("open_reservations", "Reservations that are not settled.", gateway.slices.open_reservations),
        _gauge("policy_age_seconds", "Time since live policy was confirmed.", min(live.age(), 1e9)),
        _gauge("policy_number", "Number of the live policy in use.", live.policy.number),
        _gauge("blueprint", "Number of the blueprint in use.", catalog.number if catalog else 0),
        _counter("content_lost_total", "Calls whose content could not be kept.", gateway.call_counters.content_lost),
        _gauge("cache_answers", "Cached answers in memory.", len(gateway.answer_cache)),
        _gauge("cache_bytes", "Size of the cached answers in memory.", gateway.answer_cache.size),
        *_load(gateway),
    ]


def _load(gateway: Gateway) -> list[Family]:
    """Families of load on deployments, and of calls refused for lack of capacity."""
    loads = sorted(gateway.loads.limits().items())
    running = [Sample([("deployment", name)], count) for name, (count, _) in loads]
    most = [Sample([("deployment", name)], limit) for name, (_, limit) in loads if limit is not None]
    refused = [Sample([("priority", name)], int(rank >= gateway.pressure.level)) for name, rank in RANKS.items()]
    catalog, now = gateway.live.catalog, gateway.loop.time()
    pooled = [d for d in catalog.blueprint.deployments if d.keys] if catalog else []
    whys = [(d.name, [_KEY_STATES[why] for why in gateway.targets.key_pool(d).problem_statuses(now)]) for d in pooled]
    keys = [
        Sample([("deployment", name), ("state", state)], found.count(state))
        for name, found in whys
        for state in dict.fromkeys(_KEY_STATES.values())
    ]
    return [
        _gauge("deployment_running", "Calls that run at a deployment.", running),
        _gauge("deployment_most", "Limit of the calls that run at a deployment, declared or learned.", most),
        _gauge("deployment_keys", "Keys of a deployment that has several, by state, as seen by a worker.", keys),
        _gauge("queued", "Calls that wait for room at a deployment.", gateway.loads.queued_calls),
        _gauge(
            "waiting",
            "Calls that wait to begin, as more arrived than the worker can begin at once.",
            gateway.pressure.backlog.waiting,
        ),
        _gauge(
            "loop_lag_seconds",
            "Least delay of the event loop in the last moments: how late the worker is.",
            max(0.0, gateway.pressure.lag),
        ),
        _gauge("shedding", "1 while calls of a priority are refused because the worker is overloaded.", refused),
    ]


def _memory(gateway: Gateway) -> list[Family]:
    """Families of the memory that bodies, files and answers take, and of calls refused, or waiting, for lack of it."""
    room, server, files, name = gateway.answer_memory, gateway.server, gateway.files, "room"
    taken = {"answers": (room.held_bytes, room.limit, room.refused_answers)}
    if server is not None:
        taken["requests"] = (server.held_bytes, server.limits.total_body_bytes, server.refused_bodies)
    if files is not None:
        taken["files"] = (files.held, HELD_BYTES, files.refused)
    used, most, refused = ([Sample([(name, of)], row[at]) for of, row in sorted(taken.items())] for at in range(3))
    refused += [
        Sample([(name, "deployments")], gateway.loads.refused_calls),
        Sample([(name, "worker")], gateway.pressure.refused_calls),
    ]
    return [
        _gauge("room_bytes", "Memory in use, by what it is for.", used),
        _gauge("room_most_bytes", "Limit of the memory, by what it is for.", most),
        _counter("room_refused_total", "Calls refused for lack of room, by where it was missing.", refused),
        _gauge("room_waiting", "Large answers that wait for room.", room.waiting_count),
    ]


def _journal(gateway: Gateway) -> list[Family]:
    journal, counted = gateway.journal, gateway.journal.counters
    return [
        _gauge("journal_healthy", "0 once a write or a sync of the journal has failed.", int(journal.healthy)),
        _gauge("journal_lag_bytes", "Written bytes that are not known to be on the disk yet.", journal.lag_bytes),
        _gauge("journal_open_calls", "Calls whose end is not in the journal yet.", journal.open_calls),
        _counter("journal_records_total", "Records written to the journal.", counted.records),
        _counter("journal_bytes_total", "Bytes written to the journal.", counted.bytes),
        _counter("journal_syncs_total", "Syncs of the journal to the disk.", counted.syncs),
        _counter("journal_dropped_total", "Refused calls that the full journal could not record.", counted.dropped),
        _counter(
            "journal_shortened_total",
            "Calls whose sources or route the full journal could not record.",
            counted.shortened,
        ),
    ]


def _budgets(gateway: Gateway) -> list[Family]:
    """Families of budgets in their current periods: the slice of this worker, and what is left."""
    catalog, now = gateway.live.catalog, gateway.clock.seconds()
    slices, left = [], []
    # budgets of single keys, of which there may be very many, are not among the declared ones
    for budget in sorted(catalog.blueprint.budgets, key=lambda each: each.name) if catalog else ():
        name, period = budget.name, current_key(budget.period, budget.starts, budget.timezone, now)
        if not gateway.slices.was_granted((name, period)):
            continue
        labels = [("budget", name), ("period", budget.period)]
        slices.append(Sample(labels, max(0, gateway.slices.available(name, period)) / PICO))
        left.append(Sample(labels, max(0, gateway.live.remaining(budget, period)) / PICO))
    return [
        _gauge("slice_available_usd", "What this worker may spend of a budget without asking PostgreSQL.", slices),
        _gauge(
            "budget_remaining_usd",
            "What is left of a budget beside what other workers hold, as this worker knows it.",
            left,
        ),
    ]


def process_families() -> list[Family]:
    """Return the families of this process, whichever kind it is."""
    times = os.times()
    pages = int(_STATM.read_text().split()[1])
    build = [("version", _VERSION), ("python", platform.python_version())]
    return [
        single_sample("process_cpu_seconds_total", "counter", "CPU time, user and system.", times.user + times.system),
        single_sample("process_resident_memory_bytes", "gauge", "Resident memory.", pages * os.sysconf("SC_PAGE_SIZE")),
        single_sample("process_open_fds", "gauge", "Open file descriptors.", sum(1 for _ in _DESCRIPTORS.iterdir())),
        single_sample(
            "process_start_time_seconds",
            "gauge",
            "Start of the process, in seconds since the epoch.",
            round(_STARTED, 3),
        ),
        Family("groundplan_build_info", "gauge", "Version of Groundplan and Python; always 1.", [Sample(build, 1)]),
    ]


FAMILY_GROUPS: tuple[Callable[[Gateway], list[Family]], ...] = (
    _calls,
    _attempts,
    _state,
    _memory,
    _journal,
    _budgets,
    lambda _: process_families(),
)
