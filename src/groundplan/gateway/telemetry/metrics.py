"""What a worker tells about itself, as metric families. Reads the parts of the worker; counts nothing itself."""

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
from groundplan.gateway.telemetry.conventions import OPERATIONS, named_model
from groundplan.gateway.telemetry.exposition import Family, Labels, Sample, histogram, single
from groundplan.gateway.telemetry.meters import TOKEN_CLASSES, AttemptSeries, CallSeries, Histogram, TokenLabels
from groundplan.gateway.upstream.health import Health
from groundplan.gateway.upstream.pressure import RANKS

_P = "groundplan_gateway_"
FIRST_TOKEN = "gen_ai_server_time_to_first_token_seconds"
"""OpenTelemetry's `gen_ai.server.time_to_first_token` as Prometheus writes it: a call as its caller sees it."""
_STATM = Path("/proc/self/statm")
_DESCRIPTORS = Path("/proc/self/fd")
_STATES = ("closed", "half_open", "open")
_KEY_STATES = {0: "ready", 429: "busy", 401: "refused", 403: "refused", 402: "unpaid"}
_STARTED = time.time()
_VERSION = importlib.metadata.version("groundplan")


def families(gateway: Gateway) -> list[Family]:
    """Everything, in a fixed order."""
    return [family for part in PARTS for family in part(gateway)]


async def gathered(gateway: Gateway) -> list[Family]:
    """The same, with calls answered between its parts."""
    found: list[Family] = []
    for part in PARTS:
        found += part(gateway)
        await asyncio.sleep(0)
    return found


def _calls(gateway: Gateway) -> list[Family]:
    calls = gateway.meters.calls
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
    duration = _merged(((_of_call(labels), series.duration) for labels, series in _answered(calls)))
    first = _merged(((_of_call(labels), series.first) for labels, series in _answered(calls)))
    tokens = _merged((_of_genai(labels), series) for labels, series in gateway.meters.first_tokens.items())
    cached = [
        Sample([("workload", workload), ("result", result)], count)
        for (workload, result), count in sorted(gateway.meters.cached.items())
    ]
    grounded = [
        Sample([("workload", workload), ("result", result)], count)
        for (workload, result), count in sorted(gateway.meters.grounded.items())
    ]
    cited = [
        Sample([("workload", workload), ("result", result)], count)
        for (workload, result), count in sorted(gateway.meters.cited.items())
    ]
    saved = [
        Sample([("workload", workload)], amount / PICO) for workload, amount in sorted(gateway.meters.saved.items())
    ]
    return [
        Family(f"{_P}calls_total", "counter", "Calls that have ended.", counted),
        histogram(f"{_P}call_duration_seconds", "Answered calls, from the first byte in to the last out.", duration),
        histogram(f"{_P}first_byte_seconds", "Answered calls, to the first byte of the answer.", first),
        histogram(FIRST_TOKEN, "Calls that a model answered with a stream, to the first chunk of it.", tokens),
        Family(f"{_P}cache_hits_total", "counter", "Calls that were answered without a model.", cached),
        Family(f"{_P}grounded_calls_total", "counter", "Calls for which sources were searched.", grounded),
        Family(f"{_P}citations_total", "counter", "Citations of answers, by whether the passage says it.", cited),
        Family(f"{_P}cache_saved_usd_total", "counter", "What those answers cost before.", saved),
    ]


def _answered(calls: dict[tuple[str, str, str, str, int], CallSeries]) -> Iterable[tuple[tuple[str, ...], CallSeries]]:
    return [(labels[:3], series) for labels, series in calls.items() if labels[3] == "ok"]


def _of_call(labels: tuple[str, ...]) -> Labels:
    return tuple(zip(("endpoint", "workload", "deployment"), labels, strict=True))


def _of_genai(labels: TokenLabels) -> Labels:
    """The labels of a metric that has the name of a convention: its attributes, and ours."""
    endpoint, workload, name, served = labels
    provider, model = named_model(served)
    return (
        ("gen_ai_operation_name", OPERATIONS.get(endpoint, endpoint)),
        ("gen_ai_provider_name", provider),
        ("gen_ai_request_model", model),
        ("workload", workload),
        ("deployment", name),
    )


def _merged(pairs: Iterable[tuple[Labels, Histogram]]) -> dict[Labels, Histogram]:
    """One histogram for each set of labels; what counted nothing is left out."""
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
    attempts = gateway.meters.attempts

    def counter(name: str, help_: str, value: Callable[[AttemptSeries], float]) -> Family:
        samples = [
            Sample([("workload", workload), ("deployment", deployment), ("outcome", outcome)], value(series))
            for (workload, deployment, outcome), series in sorted(attempts.items())
        ]
        return Family(f"{_P}{name}", "counter", help_, samples)

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
    duration = _merged(((("deployment", name),), series.duration) for (_, name, _), series in attempts.items())
    queue = _merged(((("workload", name),), series.queue) for (name, _, _), series in attempts.items())
    return [
        counter("attempts_total", "Tries at a deployment that have ended.", lambda series: series.count),
        counter("cost_usd_total", "What attempts have cost.", lambda series: series.cost / PICO),
        counter("estimated_attempts_total", "Attempts whose usage we had to count.", lambda series: series.estimated),
        Family(f"{_P}tokens_total", "counter", "Tokens by class; input and output contain the others.", counted),
        histogram(f"{_P}attempt_duration_seconds", "Tries at a deployment, to their end.", duration),
        histogram(f"{_P}queue_seconds", "From the first byte of a call to its first attempt.", queue),
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
    word = "1 for the state that a deployment is in"
    return [
        Family(
            f"{_P}breaker_state", "gauge", f"{word}, as seen by a worker.", _breakers(gateway, gateway.health, names)
        ),
        Family(
            f"{_P}flex_breaker_state",
            "gauge",
            f"{word} for calls at flex.",
            _breakers(gateway, gateway.flex_health, flexible),
        ),
        single(f"{_P}ready", "gauge", "1 where new calls are taken.", int(gateway.ready)),
        single(f"{_P}running", "gauge", "Calls that are not finished.", gateway.running_calls),
        single(f"{_P}streams", "gauge", "Streams that are open.", gateway.meters.streams),
        single(
            f"{_P}open_reservations", "gauge", "Reservations that are not settled.", gateway.slices.open_reservations
        ),
        single(f"{_P}policy_age_seconds", "gauge", "Since live policy was confirmed.", min(live.age(), 1e9)),
        single(f"{_P}policy_number", "gauge", "Number of the live policy in use.", live.policy.number),
        single(f"{_P}blueprint", "gauge", "Number of the blueprint in use.", catalog.number if catalog else 0),
        single(
            f"{_P}content_lost_total", "counter", "Calls whose content could not be kept.", gateway.meters.content_lost
        ),
        single(f"{_P}cache_answers", "gauge", "Answers that may be given again.", len(gateway.answer_cache)),
        single(f"{_P}cache_bytes", "gauge", "Size of these answers.", gateway.answer_cache.size),
        *_pressure(gateway),
    ]


def _pressure(gateway: Gateway) -> list[Family]:
    """What runs where, and who is refused for want of room."""
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
        Family(f"{_P}deployment_running", "gauge", "Calls at a deployment.", running),
        Family(f"{_P}deployment_most", "gauge", "Calls that it may have, declared or learned.", most),
        Family(f"{_P}deployment_keys", "gauge", "Keys of one that has several, as seen by a worker.", keys),
        single(f"{_P}queued", "gauge", "Calls that wait for room at a deployment.", gateway.loads.queued_calls),
        single(
            f"{_P}loop_lag_seconds", "gauge", "How late the worker is, lately at least.", max(0.0, gateway.pressure.lag)
        ),
        Family(
            f"{_P}shedding", "gauge", "1 where calls of a priority are refused because the worker is late.", refused
        ),
    ]


def _rooms(gateway: Gateway) -> list[Family]:
    """What bodies, files and answers take of a worker's memory, and who was refused, or waits, for want of it."""
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
        Family(f"{_P}room_bytes", "gauge", "Memory that is taken of what there is for it.", used),
        Family(f"{_P}room_most_bytes", "gauge", "What there is.", most),
        Family(f"{_P}room_refused_total", "counter", "Calls for which there was no room in time.", refused),
        single(f"{_P}room_waiting", "gauge", "Large answers that wait for room.", room.waiting_count),
    ]


def _journal(gateway: Gateway) -> list[Family]:
    journal, counted = gateway.journal, gateway.journal.counters
    return [
        single(f"{_P}journal_healthy", "gauge", "0 once a write or a sync has failed.", int(journal.healthy)),
        single(f"{_P}journal_lag_bytes", "gauge", "Written, and not yet known to be on the disk.", journal.lag_bytes),
        single(f"{_P}journal_open_calls", "gauge", "Calls with a reservation and no finish.", journal.open_calls),
        single(f"{_P}journal_records_total", "counter", "Records written.", counted.records),
        single(f"{_P}journal_bytes_total", "counter", "Bytes written.", counted.bytes),
        single(f"{_P}journal_syncs_total", "counter", "Waits for the disk.", counted.syncs),
        single(f"{_P}journal_dropped_total", "counter", "Refused calls that found no room.", counted.dropped),
    ]


def _money(gateway: Gateway) -> list[Family]:
    """Budgets in their running periods: the slice that this worker holds, and what nobody has spent."""
    catalog, now = gateway.live.catalog, gateway.clock.seconds()
    slices, left = [], []
    # those of keys, of which there may be very many, are none of these
    for budget in sorted(catalog.blueprint.budgets, key=lambda each: each.name) if catalog else ():
        name, period = budget.name, current_key(budget.period, budget.starts, budget.timezone, now)
        if not gateway.slices.was_granted((name, period)):
            continue
        labels = [("budget", name), ("period", budget.period)]
        slices.append(Sample(labels, max(0, gateway.slices.available(name, period)) / PICO))
        left.append(Sample(labels, max(0, gateway.live.remaining(budget, period)) / PICO))
    return [
        Family(f"{_P}slice_available_usd", "gauge", "What this worker may spend without asking.", slices),
        Family(f"{_P}budget_remaining_usd", "gauge", "Left beside what others hold, as this worker knows it.", left),
    ]


def process_families() -> list[Family]:
    """Of this process, whichever it is."""
    times = os.times()
    pages = int(_STATM.read_text().split()[1])
    build = [("version", _VERSION), ("python", platform.python_version())]
    return [
        single("process_cpu_seconds_total", "counter", "Processor time, user and system.", times.user + times.system),
        single("process_resident_memory_bytes", "gauge", "Resident memory.", pages * os.sysconf("SC_PAGE_SIZE")),
        single("process_open_fds", "gauge", "Open file descriptors.", sum(1 for _ in _DESCRIPTORS.iterdir())),
        single("process_start_time_seconds", "gauge", "Start, in seconds since the epoch.", round(_STARTED, 3)),
        Family("groundplan_build_info", "gauge", "Always 1.", [Sample(build, 1)]),
    ]


PARTS: tuple[Callable[[Gateway], list[Family]], ...] = (
    _calls,
    _attempts,
    _state,
    _rooms,
    _journal,
    _money,
    lambda _: process_families(),
)
