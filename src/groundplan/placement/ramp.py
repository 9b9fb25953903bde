"""Whether a workload can move gradually, in steps: the old place must serve the remaining calls meanwhile. Pure.

Steps and their length are declared; `release` makes a blueprint of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from groundplan.placement.pools import weekly_units
from groundplan.placement.terms.candidates import Candidate, CandidateSet
from groundplan.placement.terms.facts import WorkloadFacts
from groundplan.placement.verify.company import PlanClaim

HardwareUse = tuple[WorkloadFacts, Candidate, float]


def ramp_origin(w: WorkloadFacts, primary: Candidate, candidates: Sequence[Candidate]) -> Candidate | None:
    """The deployment from which the workload moves in steps; None: it stays, or moves at once."""
    if (
        not w.ramp
        or w.current_deployment is None
        or w.current_deployment == primary.config
        or primary.kind != "deployment"
    ):
        return None
    return next(
        (c for c in candidates if c.kind == "deployment" and c.config == w.current_deployment and c.is_allowed), None
    )


def immediate_moves(
    offers: CandidateSet, claim: PlanClaim, permanent: Mapping[tuple[str, str], float]
) -> dict[str, str]:
    """Workload -> why it moves at once: its old place has no capacity for the remaining calls besides its new users."""
    company = offers.company
    using: dict[tuple[str, str], list[HardwareUse]] = {}
    for name, placed in claim.placed.items():
        w = company.workloads[name]
        is_sized_fully = w.fallback == "required" or (w.requires_availability and w.availability is not None)
        for c, share in (
            (placed.primary, placed.share), (placed.burst, 1.0), (placed.fallback, 1.0 if is_sized_fully else 0.0)
        ):  # fmt: skip
            if c is not None and c.hardware and not c.lease and share:
                using.setdefault((c.site, c.hardware), []).append((w, c, share))
    tokens = _tokens_by_deployment(offers, claim)
    found: dict[str, str] = {}
    for name, placed in sorted(claim.placed.items()):
        w = company.workloads[name]
        old_place = ramp_origin(w, placed.primary, offers.by_workload[name])
        if old_place is None:
            continue
        quota = company.deployments[old_place.config].quota_tokens_minute
        after = tokens.get(old_place.config, 0.0) + _peak_tokens(w) * (1 - w.ramp[0])
        if quota is not None and after > quota:
            found[name] = (
                f"{old_place.config} has too small a quota for the rest of its calls beside those that use it now"
            )
            continue
        tokens[old_place.config] = after
        if not old_place.hardware:
            continue
        key = (old_place.site, old_place.hardware)
        together = [*using.get(key, ()), (w, old_place, 1 - w.ramp[0])]
        if max(weekly_units(together)) > permanent.get(key, 0.0) + 1e-6:
            found[name] = f"{old_place.config} has no room for the rest of its calls beside those that use it now"
        else:
            using[key] = together
    return found


def _peak_tokens(w: WorkloadFacts) -> float:
    """Tokens a minute in the busiest hour."""
    return w.peak_second * 60 * (w.prompt + w.output)


def _tokens_by_deployment(offers: CandidateSet, claim: PlanClaim) -> dict[str, float]:
    """Deployment -> tokens a minute in the plan."""
    found: dict[str, float] = {}
    for name, placed in claim.placed.items():
        w = offers.company.workloads[name]
        for c, share in ((placed.primary, placed.share), (placed.burst, 1.0), (placed.fallback, 1.0)):
            if c is not None and c.kind == "deployment":
                found[c.config] = found.get(c.config, 0.0) + _peak_tokens(w) * share
    return found
