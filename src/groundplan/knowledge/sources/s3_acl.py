"""The access list that S3 keeps of an object, as its readers: what is granted to read, named as declared. Pure.

Reading the bytes needs READ or FULL_CONTROL on the object itself. The access list of a bucket lets its grantees list
names and reads no object, so it opens nothing here; nor does owning an object without a grant. Whoever has no declared
name is nobody, and so are all where the list cannot be read. Policies of buckets and users are not looked at: where
these decide, name readers in files beside the objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from groundplan.catalog.fields import is_email
from groundplan.core.errors import Invalid
from groundplan.knowledge.model import Readers
from groundplan.knowledge.sources.model import FolderRules

_READS: Final = frozenset({"READ", "FULL_CONTROL"})
EVERYBODY: Final = frozenset({"AllUsers", "AuthenticatedUsers"})
"""Groups of S3 that a bucket can be told to ignore."""


def access_rules(acl: Mapping[str, Any], names: Mapping[str, str], *, ignores_public: bool) -> FolderRules:
    """Who may read the object, and who owns it where that is a person. `acl` is what GetObjectAcl answers; `names` says
    for canonical ids, addresses, and S3's groups (`AllUsers`, `AuthenticatedUsers`) who they are here."""
    readers = set()
    for grant in acl.get("Grants", ()):
        grantee = _grantee(grant.get("Grantee", {}))
        if grant.get("Permission") in _READS and grantee in names and not (ignores_public and grantee in EVERYBODY):
            readers.add(names[grantee])
    owner = names.get(str(acl.get("Owner", {}).get("ID", "")), "")
    told = {"owner": owner} if is_email(owner) else {}
    return FolderRules("acl", Readers(frozenset(readers)), told, is_access_list=True)


def _grantee(told: Mapping[str, Any]) -> str:
    if "URI" in told:
        return str(told["URI"]).rpartition("/")[2]
    return str(told.get("ID") or told.get("EmailAddress") or "")


def ignores_public_grants(block: Mapping[str, Any]) -> bool:
    """Whether a bucket ignores what is granted to everybody. `block` is what GetPublicAccessBlock answers."""
    return bool(block.get("PublicAccessBlockConfiguration", {}).get("IgnorePublicAcls"))


def is_not_configured(error: Exception) -> bool:
    """Whether S3 says that the bucket has no such rules."""
    told = getattr(error.__cause__, "response", None) or {}
    return bool(told.get("Error", {}).get("Code") == "NoSuchPublicAccessBlockConfiguration")


def unreadable(error: Exception) -> Invalid:
    """Of an object whose list is not told: who may read it is not known, so nobody may."""
    said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return Invalid(
        f"its access list cannot be read: {said}",
        code="readers_unreadable",
        hint="Allow s3:GetObjectAcl to the key of the source. Until then nobody finds it.",
    )
