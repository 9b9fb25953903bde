"""Large random companies from a seed: N workloads, M sites, three capacities, opening and move costs.

Published so that other solvers can be measured on the same problems. Every draw comes from PCG64(seed) alone.

- Sites are in a unit square, each with a price level (log-normal, sigma 0.25), an opening cost and three capacities.
- Workloads are in the square too, with a size (log-normal, sigma 0.6) and a mix of the three resources.
- A workload may run at the sites within reach: about `reach` of all sites, the nearest more likely (residency,
  latency); at least `MIN_SITES` of them. An option costs size x price level x (1 + noise) + distance x size.
- `tightness` is total use over total capacity per resource, if every workload were spread evenly over its options.
- Half of the workloads run somewhere already: moving one costs about a fifth of its monthly price.
"""

from __future__ import annotations

import numpy as np
from benchmarks.placement_instances.assignment import no_tiers

from groundplan.placement.problem import Indices, Options, Parts, Problem, RowKind, Rows, Sites

MIN_SITES = 5
RESOURCES = ("gpu", "memory", "network")
_DOLLAR = 10**12


def large_company(workloads: int, sites: int, *, seed: int = 1, tightness: float = 0.7, reach: float = 0.3) -> Problem:
    """A problem of this size; 10,000 workloads and 200 sites have about 590,000 options."""
    rng = np.random.Generator(np.random.PCG64(seed))
    site_position, workload_position = rng.random((sites, 2)), rng.random((workloads, 2))
    price_level = np.exp(rng.normal(0.0, 0.25, sites))
    size = np.exp(rng.normal(0.0, 0.6, workloads))
    mix = rng.dirichlet([4.0, 4.0, 4.0], workloads) * 3
    distance = np.sqrt(((workload_position[:, None, :] - site_position[None, :, :]) ** 2).sum(axis=2))
    perturbed_distance = distance + rng.exponential(0.35, (workloads, sites))
    count = max(min(MIN_SITES, sites), round(reach * sites))
    nearest_sites = np.argsort(perturbed_distance, axis=1, kind="stable")[:, :count]
    nearest_sites.sort(axis=1)
    part: Indices = np.repeat(np.arange(workloads, dtype=np.int32), count)
    site = nearest_sites.reshape(-1).astype(np.int32)
    noise = np.exp(rng.normal(0.0, 0.15, len(part)))
    run_cost = 100 * size[part] * price_level[site] * noise
    egress_cost = 40 * size[part] * distance[part, site]
    current = np.where(
        rng.random(workloads) < 0.5, nearest_sites[np.arange(workloads), rng.integers(0, count, workloads)], -1
    )
    move_cost = np.where((current[part] >= 0) & (current[part] != site), 20 * size[part], 0.0)
    use = np.ceil(1000 * size[part, None] * mix[part] * rng.uniform(0.8, 1.2, (len(part), 3))).astype(np.int64)
    expected = np.stack([np.bincount(site, use[:, k], sites) / count for k in range(3)], axis=1)
    share = rng.uniform(0.5, 1.5, (sites, 1))
    capacity_share = expected.sum(axis=0) * (share / share.sum())
    capacity = np.ceil(capacity_share / tightness).astype(np.int64)
    opening = (60 * workloads / sites * rng.uniform(0.2, 0.6, sites) * _DOLLAR / 3).astype(np.int64)
    capacities: list[RowKind] = ["capacity"] * (3 * sites)
    terms = np.stack([run_cost, egress_cost, move_cost], axis=1) * _DOLLAR
    return Problem(
        workloads=tuple(f"workload-{index}" for index in range(workloads)),
        sites=Sites(tuple(f"site-{index}" for index in range(sites)), np.arange(sites, dtype=np.int32) // 2, opening),
        parts=Parts(np.arange(workloads, dtype=np.int32), np.zeros(workloads, dtype=np.int8), current.astype(np.int32)),
        options=Options(
            part=part,
            site=site,
            config=(),
            level=np.zeros(len(part), dtype=np.int8),
            terms=terms.astype(np.int64),
            row_start=np.arange(0, 3 * len(part) + 1, 3, dtype=np.int64),
            row=(site[:, None] * 3 + np.arange(3)).reshape(-1).astype(np.int32),
            use=use.reshape(-1),
            rule_start=np.zeros(len(part) + 1, dtype=np.int64),
            rule=np.zeros(0, dtype=np.int32),
        ),
        rows=Rows(
            names=tuple(f"site-{index} {resource}" for index in range(sites) for resource in RESOURCES),
            kind=tuple(capacities),
            site=np.repeat(np.arange(sites, dtype=np.int32), 3),
            capacity=capacity.reshape(-1),
        ),
        tiers=no_tiers(),
        terms=("compute", "egress", "move"),
    )
