"""Who there is, and who may do what: people, groups, teams, duties, grants.

One pydantic model per kind; text with units is parsed on the way in. The sentence below a field describes it in
the JSON Schema. Rules between documents are `check`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints

from groundplan.catalog.base import Strict
from groundplan.catalog.fields import (
    LIST,
    Date,
    Email,
    Line,
    Lines,
    Name,
    Names,
    People,
    PersonRef,
    list_schema,
)


class Owners(Strict):
    """Who answers for something, by duty. One person may hold several duties; a duty may have several people."""

    business: People = ()
    """Answers for purpose and value. Nothing runs without one."""
    product: People = ()
    """Decides what it does."""
    architecture: People = ()
    """Decides how it is built and where it may run."""
    engineering: People = ()
    """Builds it."""
    operations: People = ()
    """Keeps it running."""
    security: People = ()
    """Answers for access and abuse."""
    finance: People = ()
    """Answers for the budget."""
    data: People = ()
    """Answers for the sources it uses."""
    compliance: People = ()
    """Answers for law and regimes."""

    def by_duty(self) -> dict[str, tuple[str, ...]]:
        """Duty -> people as written (e-mail or person name); only duties that have somebody, as in `DUTIES`."""
        return {duty: people for duty in DUTIES if (people := getattr(self, duty))}


DUTIES = tuple(Owners.model_fields)


class PersonDoc(Strict):
    """A person. People named only by e-mail need no document."""

    kind: Literal["person"] = "person"
    name: Name
    """Short name, as in `--as ben`."""
    email: Email
    full_name: Line | None = None
    job: Line | None = None
    """For information only."""


class GroupDoc(Strict):
    """A set of people that may read something. The group `everyone` exists without being declared."""

    kind: Literal["group"] = "group"
    name: Name
    title: Line | None = None
    members: People = ()
    includes: Names = ()
    """Groups or teams whose members are members, too."""


class TeamDoc(Strict):
    """A set of people that does something; budgets and workloads can belong to it. One that comes after the first start
    is declared by name and title alone: `groundplan groups add NAME --type team` and `groups join` keep its people."""

    kind: Literal["team"] = "team"
    name: Name
    title: Line | None = None
    members: People = ()
    includes: Names = ()
    """Groups or teams whose members are members, too."""
    lead: PersonRef | None = None
    """For information only."""
    cost_center: Line | None = None
    """Cost centre in its statements and in the tags of the FOCUS export."""


class GrantDoc(Strict):
    """Who may do what. `use`: once a workload has such a grant, a call must be made for one of these people; a call for
    nobody is refused. `read`: also these people read a source, besides its `readers`. `act-for-others`: once a workload
    has such a grant, only keys of these people act for others there. Groups are as live as everywhere."""

    kind: Literal["grant"] = "grant"
    name: Name
    to: Lines
    """Groups, teams or people."""
    on: Annotated[str, StringConstraints(pattern=r"^(company|(workload|source)/[a-z0-9][a-z0-9-]{0,62})$")]
    """`workload/NAME`, or `company` for all workloads; for `read` `source/NAME`."""
    allows: Annotated[
        tuple[Literal["use", "read", "act-for-others"], ...],
        LIST,
        list_schema({"enum": ["use", "read", "act-for-others"]}),
    ]
    until: Date | None = None
    """Last day (UTC). After it nobody has the grant, and what it guards stays closed to others."""
    reason: Line | None = None
