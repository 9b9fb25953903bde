"""The state of a worker as metric families: reads its counters and parts, and counts nothing itself."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from groundplan.core.money import PICO
from groundplan.gateway.budgets.periods import current_key
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.files_by_id import HELD_BYTES
from groundplan.gateway.telemetry.call_counters import TOKEN_CLASSES, AttemptSeries, CallSeries, Histogram, TokenLabels
from groundplan.gateway.telemetry.conventions import OPERATIONS, provider_and_model
from groundplan.gateway.telemetry.exposition import Family, Labels, Sample, histogram_family, single_sample
from groundplan.gateway.upstream.health import Health
from groundplan.gateway.upstream.pressure import RANKS

_PREFIX = "groundplan_gateway_"
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


def _calls(gateway: Gateway) -> list[Family]:
    calls = gateway.call_counters.calls
    counted = [
        Sample(
            [
                ("endpoint", endpoint), ("workload", workload), ("deployment", deployment), ("status", status),
                ("code", str(code)),
            ],
            series.count,
        )
        for (endpoint, workload, deployment, status, code), series in sorted(calls.items())
    ]  # fmt: skip
    duration = _merge_histograms(((_call_labels(labels), series.duration) for labels, series in _successful(calls)))
    first = _merge_histograms(((_call_labels(labels), series.first_byte) for labels, series in _successful(calls)))
    tokens = _merge_histograms(
        (_genai_labels(labels), series) for labels, series in gateway.call_counters.first_tokens.items()
    )
    cached = [
        Sample([("workload", workload), ("result", result)], count)
        for (workload, result), count in sorted(gateway.call_counters.cache_hits.items())
    ]
    grounded = [
        Sample([("workload", workload), ("result", result)], count)
        for (workload, result), count in sorted(gateway.call_counters.searches.items())
    ]
    cited = [
        Sample([("workload", workload), ("result", result)], count)
        for (workload, result), count in sorted(gateway.call_counters.citations.items())
    ]
    saved = [
        Sample([("workload", workload)], amount / PICO)
        for workload, amount in sorted(gateway.call_counters.saved_picodollars.items())
    ]
    return [
        Family(f"{_PREFIX}calls_total", "counter", "Calls that have ended.", counted),
        histogram_family(
            f"{_PREFIX}call_duration_seconds",
            "Time of answered calls, from their first byte in to the last out.",
            duration,
        ),
        histogram_family(
            f"{_PREFIX}first_byte_seconds", "Time of answered calls, to the first byte of the answer.", first
        ),
        histogram_family(FIRST_TOKEN, "Time to the first chunk of calls that a model answered with a stream.", tokens),
        Family(f"{_PREFIX}cache_hits_total", "counter", "Calls that were answered without a model.", cached),
        Family(f"{_PREFIX}grounded_calls_total", "counter", "Calls for which sources were searched.", grounded),
        Family(
            f"{_PREFIX}citations_total",
            "counter",
            "Citations in answers, by whether their passage supports them.",
            cited,
        ),
        Family(f"{_PREFIX}cache_saved_usd_total", "counter", "What cached answers would have cost again.", saved),
    ]


def _successful(
    calls: dict[tuple[str, str, str, str, int], CallSeries],
) -> Iterable[tuple[tuple[str, ...], CallSeries]]:
    return [(labels[:3], series) for labels, series in calls.items() if labels[3] == "ok"]


def _call_labels(labels: tuple[str, ...]) -> Labels:
    return tuple(zip(("endpoint", "workload", "deployment"), labels, strict=True))


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
        samples = [
            Sample([("workload", workload), ("deployment", deployment), ("outcome", outcome)], value(series))
            for (workload, deployment, outcome), series in sorted(attempts.items())
        ]
        return Family(f"{_PREFIX}{name}", "counter", help_, samples)

    tokens: dict[tuple[str, str, str], int] = {}
    for (workload, deployment, _), series in attempts.items():
        for token_class, count in zip(TOKEN_CLASSES, series.tokens, strict=True):
            if count:
                key = (workload, deployment, token_class)
                tokens[key] = tokens.get(key, 0) + count
    counted = [
        Sample([("workload", workload), ("deployment", deployment), ("class", token_class)], count)
        for (workload, deployment, token_class), count in sorted(tokens.items())
    ]
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
        Family(f"{_PREFIX}tokens_total", "counter", "Tokens by class; input and output contain the others.", counted),
        histogram_family(f"{_PREFIX}attempt_duration_seconds", "Time of attempts at a deployment.", duration),
        histogram_family(f"{_PREFIX}queue_seconds", "Time from the first byte of a call to its first attempt.", queue),
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
        Family(
            f"{_PREFIX}breaker_state",
            "gauge",
            f"{word}, as seen by a worker.",
            _breakers(gateway, gateway.health, names),
        ),
        Family(
            f"{_PREFIX}flex_breaker_state",
            "gauge",
            f"{word} for calls at the service tier flex.",
            _breakers(gateway, gateway.flex_health, flexible),
        ),
        single_sample(f"{_PREFIX}ready", "gauge", "1 while the worker accepts new calls.", int(gateway.ready)),
        single_sample(f"{_PREFIX}running", "gauge", "Calls that have not ended.", gateway.running_calls),
        single_sample(f"{_PREFIX}streams", "gauge", "Streams that are open.", gateway.call_counters.open_streams),
        single_sample(
            f"{_PREFIX}open_reservations",
            "gauge",
            "Reservations that are not settled.",
            gateway.slices.open_reservations,
        ),
        single_sample(
            f"{_PREFIX}policy_age_seconds", "gauge", "Time since live policy was confirmed.", min(live.age(), 1e9)
        ),
        single_sample(f"{_PREFIX}policy_number", "gauge", "Number of the live policy in use.", live.policy.number),
        single_sample(
            f"{_PREFIX}blueprint", "gauge", "Number of the blueprint in use.", catalog.number if catalog else 0
        ),
        single_sample(
            f"{_PREFIX}content_lost_total",
            "counter",
            "Calls whose content could not be kept.",
            gateway.call_counters.content_lost,
        ),
        single_sample(f"{_PREFIX}cache_answers", "gauge", "Cached answers in memory.", len(gateway.answer_cache)),
        single_sample(
            f"{_PREFIX}cache_bytes", "gauge", "Size of the cached answers in memory.", gateway.answer_cache.size
        ),
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
        Family(f"{_PREFIX}deployment_running", "gauge", "Calls that run at a deployment.", running),
        Family(
            f"{_PREFIX}deployment_most",
            "gauge",
            "Limit of the calls that run at a deployment, declared or learned.",
            most,
        ),
        Family(
            f"{_PREFIX}deployment_keys",
            "gauge",
            "Keys of a deployment that has several, by state, as seen by a worker.",
            keys,
        ),
        single_sample(
            f"{_PREFIX}queued", "gauge", "Calls that wait for room at a deployment.", gateway.loads.queued_calls
        ),
        single_sample(
            f"{_PREFIX}waiting",
            "gauge",
            "Calls that wait to begin, as more arrived than the worker can begin at once.",
            gateway.pressure.backlog.waiting,
        ),
        single_sample(
            f"{_PREFIX}loop_lag_seconds",
            "gauge",
            "Least delay of the event loop in the last moments: how late the worker is.",
            max(0.0, gateway.pressure.lag),
        ),
        Family(
            f"{_PREFIX}shedding",
            "gauge",
            "1 while calls of a priority are refused because the worker is overloaded.",
            refused,
        ),
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
        Family(f"{_PREFIX}room_bytes", "gauge", "Memory in use, by what it is for.", used),
        Family(f"{_PREFIX}room_most_bytes", "gauge", "Limit of the memory, by what it is for.", most),
        Family(
            f"{_PREFIX}room_refused_total",
            "counter",
            "Calls refused for lack of room, by where it was missing.",
            refused,
        ),
        single_sample(f"{_PREFIX}room_waiting", "gauge", "Large answers that wait for room.", room.waiting_count),
    ]


def _journal(gateway: Gateway) -> list[Family]:
    journal, counted = gateway.journal, gateway.journal.counters
    return [
        single_sample(
            f"{_PREFIX}journal_healthy",
            "gauge",
            "0 once a write or a sync of the journal has failed.",
            int(journal.healthy),
        ),
        single_sample(
            f"{_PREFIX}journal_lag_bytes",
            "gauge",
            "Written bytes that are not known to be on the disk yet.",
            journal.lag_bytes,
        ),
        single_sample(
            f"{_PREFIX}journal_open_calls", "gauge", "Calls whose end is not in the journal yet.", journal.open_calls
        ),
        single_sample(f"{_PREFIX}journal_records_total", "counter", "Records written to the journal.", counted.records),
        single_sample(f"{_PREFIX}journal_bytes_total", "counter", "Bytes written to the journal.", counted.bytes),
        single_sample(f"{_PREFIX}journal_syncs_total", "counter", "Syncs of the journal to the disk.", counted.syncs),
        single_sample(
            f"{_PREFIX}journal_dropped_total",
            "counter",
            "Refused calls that the full journal could not record.",
            counted.dropped,
        ),
        single_sample(
            f"{_PREFIX}journal_shortened_total",
            "counter",
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
        Family(
            f"{_PREFIX}slice_available_usd",
            "gauge",
            "What this worker may spend of a budget without asking PostgreSQL.",
            slices,
        ),
        Family(
            f"{_PREFIX}budget_remaining_usd",
            "gauge",
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
