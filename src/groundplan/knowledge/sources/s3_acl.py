"""Converts the access list that S3 keeps of an object into readers: the grantees who may read it, by their declared
names. Pure.

Reading an object needs READ or FULL_CONTROL on the object itself. The access list of a bucket allows its grantees to
list names but not to read objects, so it grants nothing here; nor does owning an object without a grant. Grantees
without a declared name are ignored, and nobody may read an object whose list cannot be read. Policies of buckets and
users are not evaluated: if these decide, name the readers in sidecars.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from groundplan.catalog.fields import is_email
from groundplan.core.errors import Invalid
from groundplan.knowledge.model import Readers
from groundplan.knowledge.sources.model import FolderRules

_READ_PERMISSIONS: Final = frozenset({"READ", "FULL_CONTROL"})
PUBLIC_GROUPS: Final = frozenset({"AllUsers", "AuthenticatedUsers"})
"""S3's groups for public grants, which a bucket can be set to ignore."""


def access_rules(acl: Mapping[str, Any], names: Mapping[str, str], *, ignores_public: bool) -> FolderRules:
    """The readers of an object, and its owner if that is a person. `acl` is the answer of GetObjectAcl; `names` maps
    canonical ids, e-mail addresses and S3's groups (`AllUsers`, `AuthenticatedUsers`) to names of readers."""
    readers = set()
    for grant in acl.get("Grants", ()):
        grantee = _grantee_name(grant.get("Grantee", {}))
        if (
            grant.get("Permission") in _READ_PERMISSIONS
            and grantee in names
            and not (ignores_public and grantee in PUBLIC_GROUPS)
        ):
            readers.add(names[grantee])
    owner = names.get(str(acl.get("Owner", {}).get("ID", "")), "")
    values = {"owner": owner} if is_email(owner) else {}
    return FolderRules("acl", Readers(frozenset(readers)), values, is_access_list=True)


def _grantee_name(grantee: Mapping[str, Any]) -> str:
    if "URI" in grantee:
        return str(grantee["URI"]).rpartition("/")[2]
    return str(grantee.get("ID") or grantee.get("EmailAddress") or "")


def ignores_public_grants(block: Mapping[str, Any]) -> bool:
    """Whether a bucket ignores public grants. `block` is the answer of GetPublicAccessBlock."""
    return bool(block.get("PublicAccessBlockConfiguration", {}).get("IgnorePublicAcls"))


def is_not_configured(error: Exception) -> bool:
    """Whether the error says that the bucket has no public access block."""
    response = getattr(error.__cause__, "response", None) or {}
    return bool(response.get("Error", {}).get("Code") == "NoSuchPublicAccessBlockConfiguration")


def unreadable(error: Exception) -> Invalid:
    """The error for an object whose access list cannot be read: its readers are not known, so nobody may read it."""
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return Invalid(
        f"its access list cannot be read: {reason}",
        code="readers_unreadable",
        hint="Allow s3:GetObjectAcl to the key of the source. Until then nobody finds it.",
    )
