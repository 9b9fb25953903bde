"""What a source says of the content that it holds, what a workload asks of content, and where a source is read from.

Types only. What holds for one document, and whether it may be retrieved, is decided by `knowledge`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from groundplan.catalog.base import Strict
from groundplan.catalog.fields import (
    Duration,
    FarUrl,
    Jurisdictions,
    Line,
    Lines,
    Name,
    Names,
    Percent,
    PersonRef,
    Secret,
)
from groundplan.catalog.retention import DAY_MS

State = Literal["draft", "approved", "rejected", "superseded", "retired"]


class GovernedRule(Strict):
    """Rules for every document of a source, unless its folder or the document itself is stricter."""

    steward: PersonRef | None = None
    """Person who maintains the content; may approve documents as the owner may."""
    state: State = "approved"
    """State of documents without a decision. `draft`: each one waits for its owner or steward."""
    purposes: Names = ()
    """Purposes for which it may be used; empty: any. A workload names its own with `needs: {purposes: …}`."""
    workloads: Names = ()
    """Workloads that may use it; empty: any that names the source."""
    residency: Jurisdictions = ()
    """Jurisdictions where it may be processed; empty: anywhere."""
    licence: Line | None = None
    retain: Annotated[Duration, Field(ge=1)] | None = None
    """How long after its last change a document is kept; then it is deleted, unless a legal hold forbids it."""
    legal_hold: bool = False
    """Whether nothing of it may be erased."""
    erase_within: Duration = 30 * DAY_MS
    """Time after a deletion until everything is physically erased."""


class NeedsRule(Strict):
    """What a workload requires of its content."""

    purposes: Names = ()
    """Purposes for which it uses content and models; sources, documents, sites and models may be limited to some
    purposes."""
    quality: Percent = 0.0
    """Documents whose quality score is below this, or not known yet, are not retrieved."""
    scanned: bool = False
    """Retrieve only documents that were scanned for personal data and secrets."""


class CheckRule(Strict):
    """A check of one column of a table. What does not hold is a finding for the owner of the source."""

    column: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    table: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    """Only tables of this name, with * and ?; left out: every table that has the column, and it is missed only in files
    that are nothing but a table."""
    type: Literal["number", "integer", "text", "date"] | None = None
    nulls: Percent = 1.0
    """Share of rows without a value that is accepted."""
    unique: bool = False
    at_least: float | int | None = None
    at_most: float | int | None = None
    one_of: Lines = ()
    matches: Annotated[str, StringConstraints(min_length=1, max_length=300)] | None = None
    """A regular expression for the whole value."""
    fresh: Duration | None = None
    """The newest value, a time, is at most this old."""
    sensor: bool = False
    """A reading of a sensor: looked at for what `rate`, `gap`, `stuck` and `drift` say."""
    time: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    """Column with the time of a reading."""
    by: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    """Column that names the sensor, where a table has readings of several."""
    rate: Annotated[float, Field(gt=0, strict=False)] | None = None
    """Most change of a reading in a minute."""
    gap: Duration | None = None
    """Longest time between two readings."""
    stuck: Annotated[int, Field(ge=2)] | None = None
    """So many readings that are all the same are a stuck sensor."""
    drift: Annotated[float, Field(gt=0, strict=False)] | None = None
    """Most that the mean of the last quarter may differ from that of the first, in standard deviations of the first (no
    less than the smallest step between values)."""

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        bounds = [name for name in ("rate", "gap", "stuck", "drift") if getattr(self, name) is not None]
        if self.sensor and not bounds:
            raise ValueError("sensor: true looks for nothing by itself: say rate, gap, stuck or drift")
        if bounds and not self.sensor:
            raise ValueError(f"{bounds[0]} is of a sensor: write sensor: true")
        if self.time is None and {"rate", "gap"} & set(bounds):
            raise ValueError("rate and gap need the times of readings: write time: COLUMN")
        if (self.time or self.by) and not self.sensor:
            raise ValueError("time and by are of a sensor: write sensor: true")
        if self.matches is not None:
            try:
                re.compile(self.matches)
            except (re.error, OverflowError, RecursionError) as error:
                raise ValueError(f"matches is no regular expression: {error}") from error
        return self


Grantee = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._%+@-]{1,200}$")]


class ConnectorRule(Strict):
    """Where a source is read from, if not from a folder of the workspace. A secret is only named."""

    type: Literal["git", "store", "web", "sql", "mail", "push"]
    url: Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00-\x20\x7f@]+$")] | None = None
    """git: a repository; store: any fsspec address such as s3://BUCKET/FOLDER,
    sftp://HOST/FOLDER or webdav+https://HOST/FOLDER; web: the first page of a site."""
    endpoint: FarUrl | None = None
    """store: where an S3-compatible service answers, if not at the provider's own address."""
    path: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = None
    """git: a folder in it; sql: an SQLite file; mail: an mbox file or a maildir: these two inside the workspace."""
    branch: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$")] | None = None
    dsn: Secret | None = None
    """sql: the address of a PostgreSQL database with its user, best one that can only read."""
    key: Secret | None = None
    """store: `ID:SECRET` of an S3 service, `USER:PASSWORD` of SFTP or WebDAV. git: `USER:PASSWORD` (or a token in place
    of the password) of an https address, `USER` of an ssh one, whose keys are those of this user."""
    host_key: Annotated[str, StringConstraints(pattern=r"^(ssh|ecdsa)-[a-z0-9-]+ [A-Za-z0-9+/=]{40,2000}$")] | None = (
        None
    )
    """store, of SFTP: the public key of the server; left out, it has to be among the known hosts of this user."""
    table: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.]{0,126}$")] | None = None
    """sql: a table or view."""
    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")] = "id"
    """sql: the column that names a row."""
    changed: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")] | None = None
    """sql: a column that grows with every change, so that only what changed is read again."""
    readers: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")] | None = None
    """sql: the column that names who may read the row: groups or addresses, comma between, `!` refuses.
    mail: `participants` lets those read a message who wrote or got it, and nobody else."""
    grants: bool = False
    """sql: whoever was granted SELECT on the table, as groups of the same name, may read its rows (PostgreSQL)."""
    acl: dict[Grantee, Line] | None = None
    """store, of S3: the access lists of the objects say who reads them. Canonical ids, addresses, `AllUsers` or
    `AuthenticatedUsers` -> a group, a person's address, `everyone` or `public`; whoever is not named is nobody."""
    rate: Annotated[float, Field(gt=0, le=10_000, strict=False)] | None = None
    """store, web: requests a second at most, 50 unless said. sql: rows asked for in a second at most."""
    pages: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """web: pages at most."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed: dict[str, tuple[str, ...]] = {
            "git": ("url",), "store": ("url",), "web": ("url",), "sql": ("table",), "mail": ("path",), "push": (),
        }  # fmt: skip
        missing = [name for name in needed[self.type] if getattr(self, name) is None]
        if self.type == "sql" and (self.dsn is None) == (self.path is None):
            missing.append("dsn or path (one of them)")
        if self.acl is not None and not (self.url or "").startswith(("s3://", "s3a://")):
            raise ValueError("acl reads the access lists of S3: write url: s3://BUCKET/FOLDER, or leave it out")
        if missing:
            raise ValueError(f"a connector of type {self.type} needs {', '.join(missing)}")
        self._without_effect()
        self._elsewhere()
        return self

    def _without_effect(self) -> None:
        """What would be accepted and change nothing is refused."""
        if self.rate is not None and self.type not in ("store", "web", "sql"):
            raise ValueError(
                f"rate bounds the requests of store, web and sql; one of type {self.type} asks once for all that is new"
            )
        if self.key is not None and self.type not in ("store", "git"):
            raise ValueError("key is for connectors of type store and git")
        if self.grants and self.dsn is None:
            raise ValueError("grants are those of PostgreSQL (dsn); of SQLite name a column of readers")

    def _elsewhere(self) -> None:
        """Files of this machine are read from folders of the workspace, not around them through a connector."""
        if self.url is None:
            return
        scheme, found, _ = self.url.partition("://")
        known = {"git": ("https", "http", "ssh", "git"), "web": ("https", "http")}.get(self.type)
        local = scheme.lower() in ("file", "local", "memory", "dir", "reference") or "::" in self.url
        if not found or local or (known is not None and scheme.lower() not in known):
            raise ValueError(
                f"write an address with a scheme, such as {' or '.join(known or ('s3', 'sftp'))}://HOST/PATH"
            )

    def settings(self) -> dict[str, Any]:
        """What was said, without its type."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude={"type", "acl"})


class TermDoc(Strict):
    """A word of the company's language: how it is meant, what else is said for it, and what must not be said."""

    kind: Literal["term"] = "term"
    name: Name
    title: Line
    """The term as it is written."""
    meaning: Line
    synonyms: Lines = ()
    """Said for it as well."""
    forbidden: Lines = ()
    """Must not be used for it; documents that do are findings."""
    owner: PersonRef | None = None
