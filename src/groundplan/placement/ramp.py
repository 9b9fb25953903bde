"""Whether a change of place can be made gradually, in steps: the old place has to bear what is left of its calls
meanwhile. Pure.

Steps and their length are declared; each of them becomes a blueprint in `release`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from groundplan.placement.pools import week_of
from groundplan.placement.terms.candidates import Candidate, Offered
from groundplan.placement.terms.facts import WorkloadFacts
from groundplan.placement.verify.company import Claim

Standing = tuple[WorkloadFacts, Candidate, float]


def origin(w: WorkloadFacts, primary: Candidate, candidates: Sequence[Candidate]) -> Candidate | None:
    """The place whose calls go over to another one in steps; None: it stays, or all of them go at once."""
    if not w.ramp or w.serving is None or w.serving == primary.config or primary.kind != "deployment":
        return None
    return next((c for c in candidates if c.kind == "deployment" and c.config == w.serving and c.allowed), None)


def at_once(offers: Offered, claim: Claim, there: Mapping[tuple[str, str], float]) -> dict[str, str]:
    """Workloads whose old place has no room for what would stay there beside whoever uses it now, in order of names."""
    company = offers.company
    using: dict[tuple[str, str], list[Standing]] = {}
    for name, placed in claim.placed.items():
        w = company.workloads[name]
        full = w.fallback == "required" or (w.available and w.availability is not None)
        for c, share in (
            (placed.primary, placed.share), (placed.burst, 1.0), (placed.fallback, 1.0 if full else 0.0)
        ):  # fmt: skip
            if c is not None and c.hardware and not c.lease and share:
                using.setdefault((c.site, c.hardware), []).append((w, c, share))
    tokens = _tokens(offers, claim)
    found: dict[str, str] = {}
    for name, placed in sorted(claim.placed.items()):
        w = company.workloads[name]
        before = origin(w, placed.primary, offers.by_workload[name])
        if before is None:
            continue
        quota = company.deployments[before.config].quota_tokens_minute
        after = tokens.get(before.config, 0.0) + _peak_tokens(w) * (1 - w.ramp[0])
        if quota is not None and after > quota:
            found[name] = (
                f"{before.config} has too small a quota for the rest of its calls beside those that use it now"
            )
            continue
        tokens[before.config] = after
        if not before.hardware:
            continue
        key = (before.site, before.hardware)
        together = [*using.get(key, ()), (w, before, 1 - w.ramp[0])]
        if max(week_of(together)) > there.get(key, 0.0) + 1e-6:
            found[name] = f"{before.config} has no room for the rest of its calls beside those that use it now"
        else:
            using[key] = together
    return found


def _peak_tokens(w: WorkloadFacts) -> float:
    """A minute, in the busiest hour."""
    return w.peak_second * 60 * (w.prompt + w.output)


def _tokens(offers: Offered, claim: Claim) -> dict[str, float]:
    """Tokens a minute at each deployment as the plan has it."""
    found: dict[str, float] = {}
    for name, placed in claim.placed.items():
        w = offers.company.workloads[name]
        for c, share in ((placed.primary, placed.share), (placed.burst, 1.0), (placed.fallback, 1.0)):
            if c is not None and c.kind == "deployment":
                found[c.config] = found.get(c.config, 0.0) + _peak_tokens(w) * share
    return found
