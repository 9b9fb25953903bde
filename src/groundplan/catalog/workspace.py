"""A workspace as read: documents by kind and name, each with its place in the files. Immutable; reads no files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from groundplan.catalog import model
from groundplan.catalog.model import DUTIES, Owners
from groundplan.catalog.reader import Document
from groundplan.core.errors import Where

D = TypeVar("D", bound=model.Strict)

EEA = frozenset({"IS", "LI", "NO"})
EU = frozenset(
    [
        "AT",
        "BE",
        "BG",
        "CY",
        "CZ",
        "DE",
        "DK",
        "EE",
        "ES",
        "FI",
        "FR",
        "GR",
        "HR",
        "HU",
        "IE",
        "IT",
        "LT",
        "LU",
        "LV",
        "MT",
        "NL",
        "PL",
        "PT",
        "RO",
        "SE",
        "SI",
        "SK",
    ]
)


def satisfies_residency(jurisdiction: str, residency: tuple[str, ...] | list[str]) -> bool:
    """Whether data that must stay in `residency` may be processed under `jurisdiction`. An empty `residency`: anywhere.

    EU and its member states count as EEA, member states as EU; no other containment is known.
    """
    return not residency or any(each in residency for each in enclosing_jurisdictions(jurisdiction))


def enclosing_jurisdictions(jurisdiction: str) -> list[str]:
    """The jurisdiction and those that contain it."""
    enclosing = ["EU"] if jurisdiction in EU else []
    return [jurisdiction, *enclosing, *(["EEA"] if jurisdiction == "EU" or jurisdiction in EU | EEA else [])]


def name_from_email(email: str) -> str:
    """`ana.lopez@acme.example` -> `Ana Lopez`."""
    words = email.partition("@")[0].replace("_", ".").replace("-", ".").split(".")
    return " ".join(word.capitalize() for word in words if word) or email


@dataclass(frozen=True)
class Workspace:
    """Everything declared. All mappings are by name and sorted, so the same declarations compare equal."""

    company: model.CompanyDoc
    documents: Mapping[tuple[str, str], tuple[model.Strict, Document]]
    """(kind, name) -> the typed document and the places of its values."""
    files: Mapping[str, str]
    """Relative path -> text of every declaration file."""
    root: Path | None = None
    """The folder, when read from one."""

    def _of_kind(self, kind: str, type_: type[D]) -> dict[str, D]:
        documents = {name: doc for (k, name), (doc, _) in self.documents.items() if k == kind}
        return {name: doc for name, doc in sorted(documents.items()) if isinstance(doc, type_)}

    @cached_property
    def people(self) -> dict[str, model.PersonDoc]:
        return self._of_kind("person", model.PersonDoc)

    @cached_property
    def groups(self) -> dict[str, model.GroupDoc]:
        return self._of_kind("group", model.GroupDoc)

    @cached_property
    def teams(self) -> dict[str, model.TeamDoc]:
        return self._of_kind("team", model.TeamDoc)

    @cached_property
    def sites(self) -> dict[str, model.SiteDoc]:
        return self._of_kind("site", model.SiteDoc)

    @cached_property
    def deployments(self) -> dict[str, model.DeploymentDoc]:
        return self._of_kind("deployment", model.DeploymentDoc)

    @cached_property
    def models(self) -> dict[str, model.ModelDoc]:
        return self._of_kind("model", model.ModelDoc)

    @cached_property
    def sources(self) -> dict[str, model.SourceDoc]:
        return self._of_kind("source", model.SourceDoc)

    @cached_property
    def terms(self) -> dict[str, model.TermDoc]:
        return self._of_kind("term", model.TermDoc)

    @cached_property
    def prompts(self) -> dict[str, model.PromptDoc]:
        return self._of_kind("prompt", model.PromptDoc)

    @cached_property
    def integrations(self) -> dict[str, model.IntegrationDoc]:
        return self._of_kind("integration", model.IntegrationDoc)

    @cached_property
    def workflows(self) -> dict[str, model.WorkflowDoc]:
        return self._of_kind("workflow", model.WorkflowDoc)

    @cached_property
    def workloads(self) -> dict[str, model.WorkloadDoc]:
        return self._of_kind("workload", model.WorkloadDoc)

    @cached_property
    def budgets(self) -> dict[str, model.BudgetDoc]:
        return self._of_kind("budget", model.BudgetDoc)

    @cached_property
    def limits(self) -> dict[str, model.LimitDoc]:
        return self._of_kind("limit", model.LimitDoc)

    @cached_property
    def allocations(self) -> dict[str, model.AllocationDoc]:
        return self._of_kind("allocation", model.AllocationDoc)

    @cached_property
    def grants(self) -> dict[str, model.GrantDoc]:
        return self._of_kind("grant", model.GrantDoc)

    @cached_property
    def policies(self) -> dict[str, model.PolicyDoc]:
        return self._of_kind("policy", model.PolicyDoc)

    @cached_property
    def frameworks(self) -> dict[str, model.FrameworkDoc]:
        return self._of_kind("framework", model.FrameworkDoc)

    @cached_property
    def tools(self) -> dict[str, model.ToolDoc]:
        return self._of_kind("tool", model.ToolDoc)

    def where(self, kind: str, name: str, *path: str | int) -> Where:
        """Place of a document or of a value in it; for a value that is not written, the place of its nearest parent.
        KeyError where the document does not exist."""
        return self.documents[kind, name][1].where(path)

    def email_of(self, person: str) -> str:
        """E-mail address of a person written as e-mail or as the name of a person document (KeyError)."""
        return person if "@" in person else self.people[person].email

    def owner_emails(self, owners: Owners) -> dict[str, tuple[str, ...]]:
        """Duty -> e-mail addresses without repetition, only for duties that have an owner."""
        return {
            duty: tuple(dict.fromkeys(self.email_of(person) for person in people))
            for duty, people in owners.by_duty().items()
        }

    def duty_holders(self, workload: str) -> dict[str, tuple[str, ...]]:
        """Duty -> e-mail addresses for a workload: its own owners, else the holders of the duty for the company."""
        own_holders = self.owner_emails(self.workloads[workload].owners)
        company_holders = self.owner_emails(self.company.owners)
        return {
            duty: own_holders.get(duty) or company_holders[duty]
            for duty in DUTIES
            if duty in own_holders or duty in company_holders
        }

    def names_by_email(self) -> dict[str, str]:
        """E-mail -> name of each person: declared ones, and those that a document names only by e-mail."""
        declared = {doc.email: doc.full_name or name_from_email(f"{doc.name}@") for doc in self.people.values()}
        referenced = {ref for ref in self._referenced_people() if "@" in ref}
        return dict(sorted({**{email: name_from_email(email) for email in referenced}, **declared}.items()))

    def _referenced_people(self) -> set[str]:
        people: set[str] = set()
        for doc, _ in self.documents.values():
            for person in person_references(doc).values():
                people.add(person)
        return people

    def budgets_of(self, workload: str) -> tuple[str, ...]:
        """Names of the budgets that cover every call of a workload: of the company, its team, and itself."""
        covering = {"company", f"workload/{workload}"}
        team = self.workloads[workload].team
        if team is not None:
            covering.add(f"team/{team}")
        return tuple(name for name, doc in self.budgets.items() if doc.covers in covering)


def person_references(doc: model.Strict) -> dict[tuple[str | int, ...], str]:
    """Path -> person as written (name or e-mail), for every value of a document that names a person."""
    references: dict[tuple[str | int, ...], str] = {}
    owners = getattr(doc, "owners", None)
    if isinstance(owners, Owners):
        for duty in DUTIES:
            references |= {("owners", duty, i): ref for i, ref in enumerate(getattr(owners, duty))}
    for name in ("owner", "lead"):
        if ref := getattr(doc, name, None):
            references[(name,)] = ref
    for i, ref in enumerate(getattr(doc, "members", ())):
        references["members", i] = ref
    for name in ("readers", "to"):
        references |= {(name, i): ref for i, ref in enumerate(getattr(doc, name, ())) if "@" in ref}
    if isinstance(doc, model.SourceDoc) and doc.governed.steward:
        references["governed", "steward"] = doc.governed.steward
    if isinstance(doc, model.WorkloadDoc):
        references |= {("review", "by", i): ref for i, ref in enumerate(doc.review.by)}
    return references


def frozen_documents(
    documents: dict[tuple[str, str], tuple[model.Strict, Document]],
) -> Mapping[tuple[str, str], tuple[model.Strict, Document]]:
    """A read-only view, sorted."""
    return MappingProxyType(dict(sorted(documents.items(), key=lambda item: item[0])))
