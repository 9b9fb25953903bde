"""The time that company rules take in the request path: 100 Cedar policies, with decisions evaluated anew and cached.

Measures the gateway's decision at admission (`gateway/policy/gate.py`) for one call to one deployment by a person in
groups: `uncached_*` evaluates every decision on the workload's slice of the policies, `cached_us` finds it in the
cache, `unsliced_p50_us` evaluates all policies, as without slicing. Microseconds of wall time; figures with `cpu` are
CPU time, which other load on the machine lengthens less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.provenance import commit, machine

from groundplan.blueprint import model as bp
from groundplan.gateway.policy.gate import Gate
from groundplan.gateway.policy.snapshot import KeyEntry, Policy
from groundplan.governance.policy.calls import CallRules, Principal
from groundplan.governance.policy.partial_evaluation import Facts
from groundplan.governance.policy.vocabulary import deployment_facts

LEVELS = ("public", "internal", "confidential", "restricted")
PERSON = "01890000-0000-7000-8000-000000000001"


def build_policies(count: int) -> list[bp.PolicyRules]:
    """Rules such as companies write: by workload, sensitivity, group, model, place, and terms."""
    kinds = (
        'forbid (principal, action == Action::"call", resource == Workload::"w{w}")'
        ' when {{ context.model == "p/m{n}" }};',
        'forbid (principal, action == Action::"call", resource) when {{ resource.sensitivity == "{s}" &&'
        " context.training }};",
        'forbid (principal, action == Action::"call", resource in Team::"t{w}")'
        ' unless {{ principal in Group::"g{g}" }};',
        'forbid (principal, action == Action::"use_tool", resource) when {{ context.tool == "tool-{n}" }};',
        'forbid (principal, action == Action::"call", resource) when {{ resource.sensitivity == "{s}" &&'
        ' !["EU", "NO", "CH"].contains(context.jurisdiction) }};',
    )
    rules = []
    for n in range(count):
        rule = kinds[n % len(kinds)].format(w=n % 25, n=n, s=LEVELS[2 + n % 2], g=n % 7)
        rules.append(bp.PolicyRules(name=f"rule-{n}", text=rule, owner="sam@acme.example", enforced=True))
    return rules


def build_blueprint(count: int) -> bp.Blueprint:
    """25 workloads, one deployment and `count` policies."""
    rates = bp.Rates(input=0, output=0)
    workloads = [
        bp.Workload(
            name=f"w{n}", purpose="p", stage="production", sensitivity=LEVELS[n % 4], audience="employees",
            residency=[], team=f"t{n}", deployments=["d"], budgets=[],
        )
        for n in range(25)
    ]  # fmt: skip
    deployment = bp.Deployment(
        name="d", site="s", model="p/m", upstream_model="m", url="http://127.0.0.1:1/v1", rates=rates,
        terms=bp.ProviderTerms(training=False, retention_days=0),
    )  # fmt: skip
    return bp.Blueprint(
        number=1, company="acme", separation="solo", sites=[bp.Site(name="s", type="cloud", jurisdiction="EU")],
        deployments=[deployment], sources=[], workloads=workloads, budgets=[], placements=[],
        policies=build_policies(count),
    )  # fmt: skip


def p50_and_p99(times: list[int]) -> tuple[float, float]:
    """(p50, p99) in microseconds, of times in nanoseconds."""
    times.sort()
    return statistics.median(times) / 1000, times[int(len(times) * 0.99)] / 1000


def measure(count: int, rounds: int) -> dict[str, object]:
    """Figures with `count` policies; each time is taken `rounds` times."""
    blueprint = build_blueprint(count)
    gate = Gate(CallRules(blueprint))
    groups = {f"g{n}": frozenset({PERSON}) for n in range(7)}
    policy = Policy(1, {}, {"dana@acme.example": PERSON}, frozenset({PERSON}), frozenset(), members=groups)
    keys = [KeyEntry(f"key-{n}", f"w{n}", PERSON, False, False, None) for n in range(25)]
    deployments, now = [blueprint.deployments[0]], time.time()
    for key in keys:
        gate.allowed(policy, key.workload, key, PERSON, "chat", deployments, now)
    uncached: list[int] = []
    uncached_cpu: list[int] = []
    for n in range(rounds):
        gate._decisions.clear()
        key, started, cpu_started = keys[n % 25], time.perf_counter_ns(), time.thread_time_ns()
        gate.allowed(policy, key.workload, key, PERSON, "chat", deployments, now)
        uncached_cpu.append(time.thread_time_ns() - cpu_started)
        uncached.append(time.perf_counter_ns() - started)
    cached: list[int] = []
    for key in keys:
        gate.allowed(policy, key.workload, key, PERSON, "chat", deployments, now)
    for n in range(rounds):
        key, started = keys[n % 25], time.perf_counter_ns()
        gate.allowed(policy, key.workload, key, PERSON, "chat", deployments, now)
        cached.append(time.perf_counter_ns() - started)
    p50, p99 = p50_and_p99(uncached)
    cpu_p50, cpu_p99 = p50_and_p99(uncached_cpu)
    cached_p50, cached_p99 = p50_and_p99(cached)
    return {
        "policies": count,
        "uncached_p50_us": round(p50, 2),
        "uncached_p99_us": round(p99, 2),
        "uncached_cpu_p50_us": round(cpu_p50, 2),
        "uncached_cpu_p99_us": round(cpu_p99, 2),
        "cached_us": round(cached_p50, 3),
        "cached_p99_us": round(cached_p99, 3),
        "unsliced_p50_us": round(measure_unsliced(blueprint, groups, rounds // 4), 2),
        "policies_in_a_slice": round(
            statistics.mean(len(gate.rules.workload_rules(key.workload, deployment="d").slice.rules) for key in keys), 1
        ),
        "rounds": rounds,
    }


def measure_unsliced(blueprint: bp.Blueprint, groups: dict[str, frozenset[str]], rounds: int) -> float:
    """The median in microseconds if every decision evaluates every policy."""
    rules = CallRules(blueprint)
    all_rules = rules._rules.narrow(Facts())
    workload_rules = rules.workload_rules("w3")
    context = {**deployment_facts(blueprint, blueprint.deployments[0]), "endpoint": "chat", "hour": 9, "weekday": 3}
    principal, times = Principal("Person", "dana@acme.example", tuple(groups)), []
    rules._workload_rules["w3", "call", "", frozenset()] = type(workload_rules)(
        all_rules, workload_rules.is_time_dependent, None, workload_rules.entities
    )
    for _ in range(rounds):
        started = time.perf_counter_ns()
        rules.decide("w3", ("Action", "call"), principal, context)
        times.append(time.perf_counter_ns() - started)
    return p50_and_p99(times)[0]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--policies", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=20_000)
    options = parser.parse_args()
    figures = measure(options.policies, options.rounds) | {
        "targets": {"uncached_p50_us": 70, "uncached_p99_us": 300, "cached_us": 5},
        "machine": machine(),
        "load": round(os.getloadavg()[0], 1),
        "commit": commit(),
    }
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:>22}  {value}")


if __name__ == "__main__":
    main()
