"""What of a workload in production is approved by itself: models, prompts, sources for a purpose, its audience. Pure.

Each part is bound to what is declared of it (the version of a model and its provider's terms, the text of a prompt, the
declaration of a source and the purpose, the audience), never to the contents of documents, nor to prices within a
band above those of when a model was approved. Who must agree is `model.ASKED`; keeping approvals is `service`; asking
it for each call is the gateway's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Literal

from groundplan.blueprint.artifact import portable, said
from groundplan.blueprint.model import ApprovalTerms, Blueprint, Deployment, Rates, Source, Workload
from groundplan.core import canonical
from groundplan.core.errors import Invalid, Problem
from groundplan.governance.model import ASKED, Given
from groundplan.governance.policy.vocabulary import provider_of

KINDS = ("model", "prompt", "data", "rollout")
AT_GATEWAYS = (*KINDS, "exception")
"""What gateways look at with every call: each change of it is a new number of live policy."""
_FINER = {
    "cache_read": "input", "cache_write": "input", "reasoning": "output", "input_audio": "input",
    "output_audio": "output",
}  # fmt: skip
"""Class of a price -> the class that it is priced as where it has none of its own."""
_REACHES = {"employees": "employees", "customers": "customers", "public": "the public"}
AUDIENCES = tuple(_REACHES)
"""Each reaches more people than the one before."""
_ELSEWHERE = {
    "policy": "Write the rule into the workspace and apply it.",
    "exception": "Ask with `groundplan policy exception`.",
    "evidence": "Give it with `groundplan evidence add`: where the company has evidence approved, that asks for it.",
}
"""What is approved, and asked for in its own place: an approval that names it by hand would bite nowhere."""
ALWAYS = date.max
Why = Literal["missing", "withdrawn", "expired", "price"]
_WORDS = {
    "missing": "nobody has approved {} for production",
    "withdrawn": "the approval of {} was withdrawn",
    "expired": "the approval of {} has ended",
    "price": "{} costs more than the band above what was approved allows",
}


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that is approved by itself. `what` is its declaration, to which approvals are bound."""

    kind: str
    subject: str
    """`model/NAME`, `prompt/NAME`, `source/NAME`, or `workload/NAME` for whom it reaches"""
    what: Mapping[str, Any] = field(hash=False)
    digest: str
    deployments: tuple[str, ...] = ()
    """Those that serve this model; empty: the whole workload rests on it."""
    restricted: bool = False
    """Its data, or that of its workload, is restricted: there is no grace."""
    wider: tuple[str, ...] = ()
    """Digests of what contains this: an approval of one of them is enough."""
    price: Mapping[str, int] = field(default_factory=dict, hash=False)
    """The dearest that its deployments take of each class, as `price_of` says it; beside the digest."""

    @property
    def named(self) -> str:
        """In words, with its version or purpose."""
        if self.kind == "data":
            return f"{self.subject} for the purpose '{self.what['purpose']}'"
        if self.kind == "rollout":
            return f"{self.subject} reaching {_REACHES[self.what['audience']]} in production"
        return f"{self.subject} (version {self.what['version']})"


@dataclass(frozen=True, slots=True)
class Lapse:
    """A part that may not be used, and why."""

    part: Part
    why: Why


def asked_digest(kind: str, subject: str, what: Mapping[str, Any]) -> str:
    """SHA-256 of what is asked for beside the blueprint. Raises what canonical JSON raises."""
    return canonical.digest(canonical.canonical({"kind": kind, "subject": subject, "what": dict(what)}))


def check_asked(kind: str, subject: str, what: Mapping[str, Any]) -> None:
    """Whether somebody may ask for this by hand. Raises `Invalid` (`approval_kind`, `approval_reach`)."""
    if kind in _ELSEWHERE:
        raise Invalid(f"approval of {kind} is not asked for here", code="approval_kind", hint=_ELSEWHERE[kind])
    reaches = [reach_declared(each) for each in AUDIENCES]
    if kind == "rollout" and not (subject.startswith("workload/") and dict(what) in reaches):
        raise Invalid(
            f"this is no rollout: {subject[:80]}", code="approval_reach",
            hint=f"Name workload/NAME, and as `what` stage: production and audience: {', '.join(AUDIENCES)}.",
        )  # fmt: skip


def parts_of(blueprint: Blueprint, workload: Workload) -> tuple[Part, ...]:
    """Everything that a workload in production uses, models first; nothing for one of another stage."""
    if workload.stage != "production":
        return ()
    restricted = workload.sensitivity == "restricted"
    found = _models(blueprint, workload, restricted)
    if workload.prompt is not None and workload.system_prompt is not None:
        name, _, version = workload.prompt.partition("@")
        what = {"version": version, "text": canonical.digest(workload.system_prompt.encode())}
        found.append(_part("prompt", f"prompt/{name}", what, restricted))
    used = set(workload.grounding.sources) if workload.grounding else set()
    for source in blueprint.sources:
        if source.name in used:
            stricter = restricted or source.sensitivity == "restricted"
            for purpose in workload.needs.purposes or [workload.purpose]:
                found.append(_part("data", f"source/{source.name}", data_declared(source, purpose), stricter))
    found.append(_reach(workload, restricted))
    return tuple(found)


def reach_declared(audience: str) -> dict[str, Any]:
    """Whom production reaches; neither how many of them call, nor with what."""
    return {"stage": "production", "audience": audience}


def model_declared(deployment: Deployment) -> dict[str, Any]:
    """A version of a model at a provider under its terms; neither its price nor where it is reached."""
    terms = deployment.terms
    return {
        "version": deployment.upstream_model,
        "provider": provider_of(deployment),
        "terms": None if terms is None else said(terms),
    }


def price_of(rates: Rates) -> dict[str, int]:
    """Picodollars by class, those of longer prompts and classes of service with that name before: `long.input`."""
    found = {
        "input": rates.input, "output": rates.output, "request": rates.request, "image": rates.image,
        "characters": rates.characters, "minute": rates.minute, "shortest": rates.shortest, "flagged": rates.flagged,
        **{name: amount for name in _FINER if (amount := getattr(rates, name)) is not None},
        **{f"images.{size}": amount for size, amount in rates.images.items()},
    }  # fmt: skip
    for name in ("long", "batch", "priority", "flex"):
        if (more := getattr(rates, name)) is not None:
            found |= {f"{name}.{each}": amount for each, amount in price_of(more).items()}
    return {name: amount for name, amount in found.items() if amount}


def price_declared(blueprint: Blueprint, digest: str) -> dict[str, int]:
    """The price of a model as it is served, found by the digest of what is declared of it; empty where none is."""
    return dearest(
        price_of(item.rates)
        for item in blueprint.deployments
        if asked_digest("model", f"model/{item.model}", model_declared(item)) == digest
    )


def dearest(prices: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Of each class the highest."""
    found: dict[str, int] = {}
    for price in prices:
        found |= {name: max(amount, found.get(name, 0)) for name, amount in price.items()}
    return found


def beyond(price: Mapping[str, int], approved: Mapping[str, int], band: float) -> tuple[str, ...]:
    """Classes whose price is above the approved one by more than the share `band`. A class that had no price of its own
    is held against the one that it was priced as. Nothing where no price was noted."""
    return tuple(
        name
        for name, amount in price.items()
        if approved and amount - (had := _approved(name, approved)) > round(had * band)
    )


def _approved(name: str, approved: Mapping[str, int]) -> int:
    plain = name.rpartition(".")[2]
    return next((approved[each] for each in (name, plain, _FINER.get(plain, "")) if each in approved), 0)


def data_declared(source: Source, purpose: str) -> dict[str, Any]:
    """A source as it is declared, for one purpose; not what its documents say."""
    return {
        "purpose": purpose,
        "sensitivity": source.sensitivity,
        "readers": list(source.readers),
        "declaration": canonical.digest(canonical.canonical(portable(said(source)))),
    }


def lasts(part: Part, given: Mapping[str, Given], kinds: Collection[str], band: float) -> date | Why:
    """The last day on which a part may be used, or why it may not be.

    `given`: approvals by digest; `kinds`: those that need an approval of their own. Another kind that was never
    approved by itself is covered by the approval of the workload; one that was withdrawn or has ended is not. `band`:
    share by which the price may be above the approved one.
    """
    held = [given[digest] for digest in (part.digest, *part.wider) if digest in given and given[digest].stands]
    if held and all(beyond(part.price, each.price, band) for each in held):
        return "price"
    if held:
        return max(each.expires_on if part.restricted else each.grace_until for each in held)
    found = given.get(part.digest)
    if found is None:
        return "missing" if part.kind in kinds else ALWAYS
    return "withdrawn" if found.withdrawn else "expired"


def lapses(
    blueprint: Blueprint, workload: Workload, given: Mapping[str, Given], kinds: Collection[str], today: date
) -> tuple[Lapse, ...]:
    """Parts of a workload that may not be used on a day."""
    found: list[Lapse] = []
    for part in parts_of(blueprint, workload):
        last = lasts(part, given, kinds, band_of(blueprint))
        if not isinstance(last, date):
            found.append(Lapse(part, last))
        elif last < today:
            found.append(Lapse(part, "expired"))
    return tuple(found)


def band_of(blueprint: Blueprint) -> float:
    """By how much of itself a price may rise above the approved one."""
    return (blueprint.approval_terms or ApprovalTerms()).price_band


def told(lapse: Lapse, workload: str, owners: Mapping[str, list[str]]) -> Problem:
    """The rule that refuses it, who decides, and how to ask. `owners`: e-mail addresses by duty."""
    part, duties = lapse.part, ASKED[lapse.part.kind]
    who = " and ".join(
        f"{duty} ({', '.join(owners[duty])})" if owners.get(duty) else f"whoever holds the duty {duty}"
        for duty in duties
    )
    return Problem(
        f"the rule approved-{part.kind} refuses workload/{workload}: {_WORDS[lapse.why].format(part.named)}",
        f"approval_{lapse.why}",
        f"{who[0].upper()}{who[1:]} decide. Ask: groundplan changes ask --workload {workload} -m WHY.",
    )


def _models(blueprint: Blueprint, workload: Workload, restricted: bool) -> list[Part]:
    """One part for each model, with every deployment that serves it."""
    found: dict[str, Part] = {}
    deployments = {item.name: item for item in blueprint.deployments}
    for name in workload.places:
        if (item := deployments.get(name)) is not None:
            part = _part("model", f"model/{item.model}", model_declared(item), restricted)
            known = found.get(part.digest, part)
            price = dearest((known.price, price_of(item.rates)))
            found[part.digest] = replace(known, deployments=(*known.deployments, name), price=price)
    return list(found.values())


def _reach(workload: Workload, restricted: bool) -> Part:
    subject = f"workload/{workload.name}"
    wider = AUDIENCES[AUDIENCES.index(workload.audience) + 1 :]
    digests = tuple(asked_digest("rollout", subject, reach_declared(each)) for each in wider)
    return replace(_part("rollout", subject, reach_declared(workload.audience), restricted), wider=digests)


def _part(kind: str, subject: str, what: dict[str, Any], restricted: bool) -> Part:
    return Part(kind, subject, what, asked_digest(kind, subject, what), restricted=restricted)
