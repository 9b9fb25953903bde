"""Parts of a production workload that need an approval of their own: models, prompts, sources for a purpose, the
audience. Pure.

An approval is bound to the part's declaration (the version of a model and its provider's terms, the text of a prompt,
the declaration of a source and the purpose, the audience), never to the contents of documents, nor to prices within a
band above those at approval. Who must approve is in `model.REQUEST_DUTIES`; `service` stores approvals; the gateway
checks them for each call.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Literal

from groundplan.blueprint.artifact import non_default_fields, with_large_integers_as_text
from groundplan.blueprint.model import ApprovalTerms, Blueprint, Deployment, Rates, Source, Workload
from groundplan.core import canonical
from groundplan.core.errors import Invalid, Problem
from groundplan.governance.model import REQUEST_DUTIES, GrantedApproval
from groundplan.governance.policy.vocabulary import provider_of

PART_KINDS = ("model", "prompt", "data", "rollout")
GATEWAY_KINDS = (*PART_KINDS, "exception")
"""Kinds that gateways check with every call: each change of one takes a new number of live policy."""
_PARENT_CLASS = {
    "cache_read": "input", "cache_write": "input", "reasoning": "output", "input_audio": "input",
    "output_audio": "output",
}  # fmt: skip
"""Class of a price -> the class that it is priced as where it has none of its own."""
_AUDIENCE_NAMES = {"employees": "employees", "customers": "customers", "public": "the public"}
AUDIENCES = tuple(_AUDIENCE_NAMES)
"""Ordered: each reaches more people than the one before."""
_REQUESTED_ELSEWHERE = {
    "policy": "Write the rule into the workspace and apply it.",
    "exception": "Ask with `groundplan policy exception`.",
    "evidence": "Give it with `groundplan evidence add`: where the company has evidence approved, that asks for it.",
}
"""Kinds that are requested elsewhere -> hint where: an approval of them requested by hand would have no effect."""
NO_END = date.max
LapseReason = Literal["missing", "withdrawn", "expired", "price"]
_REASON_TEXTS = {
    "missing": "nobody has approved {} for production",
    "withdrawn": "the approval of {} was withdrawn",
    "expired": "the approval of {} has ended",
    "price": "{} costs more than the band above what was approved allows",
}


@dataclass(frozen=True, slots=True)
class Part:
    """One part that is approved on its own; approvals are bound to its `declaration`."""

    kind: str
    subject: str
    """`model/NAME`, `prompt/NAME`, `source/NAME`, or `workload/NAME` for the audience"""
    declaration: Mapping[str, Any] = field(hash=False)
    digest: str
    deployments: tuple[str, ...] = ()
    """Deployments that serve this model; empty: the whole workload depends on this part."""
    restricted: bool = False
    """Its data or that of its workload is restricted: there is no grace."""
    wider_digests: tuple[str, ...] = ()
    """Digests of declarations that include this one: an approval of any of them is enough."""
    price: Mapping[str, int] = field(default_factory=dict, hash=False)
    """The highest price of each class among its deployments (`price_by_class`); not part of the digest."""

    @property
    def label(self) -> str:
        """Name for messages, with its version or purpose."""
        if self.kind == "data":
            return f"{self.subject} for the purpose '{self.declaration['purpose']}'"
        if self.kind == "rollout":
            return f"{self.subject} reaching {_AUDIENCE_NAMES[self.declaration['audience']]} in production"
        return f"{self.subject} (version {self.declaration['version']})"


@dataclass(frozen=True, slots=True)
class Lapse:
    """A part that may not be used, and why."""

    part: Part
    reason: LapseReason


def declaration_digest(kind: str, subject: str, what: Mapping[str, Any]) -> str:
    """SHA-256 of a declaration whose approval is requested. Raises what canonical JSON raises."""
    return canonical.digest(canonical.canonical({"kind": kind, "subject": subject, "what": dict(what)}))


def check_request(kind: str, subject: str, what: Mapping[str, Any]) -> None:
    """Check that this approval may be requested by hand. Raises `Invalid` (`approval_kind`, `approval_reach`)."""
    if kind in _REQUESTED_ELSEWHERE:
        raise Invalid(
            f"approval of {kind} is not asked for here", code="approval_kind", hint=_REQUESTED_ELSEWHERE[kind]
        )
    reaches = [audience_declaration(each) for each in AUDIENCES]
    if kind == "rollout" and not (subject.startswith("workload/") and dict(what) in reaches):
        raise Invalid(
            f"this is no rollout: {subject[:80]}", code="approval_reach",
            hint=f"Name workload/NAME, and as `what` stage: production and audience: {', '.join(AUDIENCES)}.",
        )  # fmt: skip


def workload_parts(blueprint: Blueprint, workload: Workload) -> tuple[Part, ...]:
    """Every part that a workload in production uses, models first; none for another stage."""
    if workload.stage != "production":
        return ()
    restricted = workload.sensitivity == "restricted"
    found = _model_parts(blueprint, workload, restricted)
    if workload.prompt is not None and workload.system_prompt is not None:
        name, _, version = workload.prompt.partition("@")
        what = {"version": version, "text": canonical.digest(workload.system_prompt.encode())}
        found.append(_new_part("prompt", f"prompt/{name}", what, restricted))
    used = set(workload.grounding.sources) if workload.grounding else set()
    for source in blueprint.sources:
        if source.name in used:
            stricter = restricted or source.sensitivity == "restricted"
            for purpose in workload.needs.purposes or [workload.purpose]:
                found.append(_new_part("data", f"source/{source.name}", data_declaration(source, purpose), stricter))
    found.append(_audience_part(workload, restricted))
    return tuple(found)


def audience_declaration(audience: str) -> dict[str, Any]:
    """The audience that production reaches; neither how many of them call, nor with what."""
    return {"stage": "production", "audience": audience}


def model_declaration(deployment: Deployment) -> dict[str, Any]:
    """A version of a model at a provider under its terms; neither its price nor its address."""
    terms = deployment.terms
    return {
        "version": deployment.upstream_model,
        "provider": provider_of(deployment),
        "terms": None if terms is None else non_default_fields(terms),
    }


def price_by_class(rates: Rates) -> dict[str, int]:
    """Picodollars by class; those of longer prompts and other classes of service with a prefix: `long.input`."""
    found = {
        "input": rates.input, "output": rates.output, "request": rates.request, "image": rates.image,
        "characters": rates.characters, "minute": rates.minute, "shortest": rates.shortest, "flagged": rates.flagged,
        **{name: amount for name in _PARENT_CLASS if (amount := getattr(rates, name)) is not None},
        **{f"images.{size}": amount for size, amount in rates.images.items()},
    }  # fmt: skip
    for name in ("long", "batch", "priority", "flex"):
        if (more := getattr(rates, name)) is not None:
            found |= {f"{name}.{each}": amount for each, amount in price_by_class(more).items()}
    return {name: amount for name, amount in found.items() if amount}


def served_price(blueprint: Blueprint, digest: str) -> dict[str, int]:
    """Price of a served model, found by the digest of its declaration; empty where no deployment matches."""
    return highest_prices(
        price_by_class(item.rates)
        for item in blueprint.deployments
        if declaration_digest("model", f"model/{item.model}", model_declaration(item)) == digest
    )


def highest_prices(prices: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The highest price of each class."""
    found: dict[str, int] = {}
    for price in prices:
        found |= {name: max(amount, found.get(name, 0)) for name, amount in price.items()}
    return found


def classes_beyond_band(price: Mapping[str, int], approved: Mapping[str, int], band: float) -> tuple[str, ...]:
    """Classes whose price is above the approved one by more than the share `band`. A class that had no price of its own
    is compared with the class that it was priced as. None where no price was recorded."""
    return tuple(
        name
        for name, amount in price.items()
        if approved and amount - (had := _approved_price(name, approved)) > round(had * band)
    )


def _approved_price(name: str, approved: Mapping[str, int]) -> int:
    plain = name.rpartition(".")[2]
    return next((approved[each] for each in (name, plain, _PARENT_CLASS.get(plain, "")) if each in approved), 0)


def data_declaration(source: Source, purpose: str) -> dict[str, Any]:
    """A source as declared, for one purpose; not the contents of its documents."""
    return {
        "purpose": purpose,
        "sensitivity": source.sensitivity,
        "readers": list(source.readers),
        "declaration": canonical.digest(canonical.canonical(with_large_integers_as_text(non_default_fields(source)))),
    }


def valid_until(
    part: Part, given: Mapping[str, GrantedApproval], kinds: Collection[str], band: float
) -> date | LapseReason:
    """The last day on which a part may be used, or why it may not be.

    `given`: approvals by digest. `kinds`: kinds that need an approval of their own; a part of another kind that never
    had one is covered by the approval of the workload, one whose approval was withdrawn or has ended is not. `band`:
    share by which the price may be above the approved one.
    """
    held = [
        given[digest] for digest in (part.digest, *part.wider_digests) if digest in given and given[digest].is_valid
    ]
    if held and all(classes_beyond_band(part.price, each.price, band) for each in held):
        return "price"
    if held:
        return max(each.expires_on if part.restricted else each.grace_until for each in held)
    found = given.get(part.digest)
    if found is None:
        return "missing" if part.kind in kinds else NO_END
    return "withdrawn" if found.withdrawn else "expired"


def find_lapses(
    blueprint: Blueprint, workload: Workload, given: Mapping[str, GrantedApproval], kinds: Collection[str], today: date
) -> tuple[Lapse, ...]:
    """Parts of a workload that may not be used on a day, each with the reason."""
    found: list[Lapse] = []
    for part in workload_parts(blueprint, workload):
        last = valid_until(part, given, kinds, price_band(blueprint))
        if not isinstance(last, date):
            found.append(Lapse(part, last))
        elif last < today:
            found.append(Lapse(part, "expired"))
    return tuple(found)


def price_band(blueprint: Blueprint) -> float:
    """Share by which a price may rise above the approved one."""
    return (blueprint.approval_terms or ApprovalTerms()).price_band


def lapse_problem(lapse: Lapse, workload: str, owners: Mapping[str, list[str]]) -> Problem:
    """Problem that names the refusing rule, who decides, and how to request approval. `owners`: e-mails by duty."""
    part, duties = lapse.part, REQUEST_DUTIES[lapse.part.kind]
    who = " and ".join(
        f"{duty} ({', '.join(owners[duty])})" if owners.get(duty) else f"whoever holds the duty {duty}"
        for duty in duties
    )
    return Problem(
        f"the rule approved-{part.kind} refuses workload/{workload}: {_REASON_TEXTS[lapse.reason].format(part.label)}",
        f"approval_{lapse.reason}",
        f"{who[0].upper()}{who[1:]} decide. Ask: groundplan changes ask --workload {workload} -m WHY.",
    )


def _model_parts(blueprint: Blueprint, workload: Workload, restricted: bool) -> list[Part]:
    """One part for each model, with every deployment that serves it."""
    found: dict[str, Part] = {}
    deployments = {item.name: item for item in blueprint.deployments}
    for name in workload.all_deployments:
        if (item := deployments.get(name)) is not None:
            part = _new_part("model", f"model/{item.model}", model_declaration(item), restricted)
            known = found.get(part.digest, part)
            price = highest_prices((known.price, price_by_class(item.rates)))
            found[part.digest] = replace(known, deployments=(*known.deployments, name), price=price)
    return list(found.values())


def _audience_part(workload: Workload, restricted: bool) -> Part:
    subject = f"workload/{workload.name}"
    wider = AUDIENCES[AUDIENCES.index(workload.audience) + 1 :]
    digests = tuple(declaration_digest("rollout", subject, audience_declaration(each)) for each in wider)
    return replace(
        _new_part("rollout", subject, audience_declaration(workload.audience), restricted), wider_digests=digests
    )


def _new_part(kind: str, subject: str, what: dict[str, Any], restricted: bool) -> Part:
    return Part(kind, subject, what, declaration_digest(kind, subject, what), restricted=restricted)
