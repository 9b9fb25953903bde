"""The audit log: entries recorded in the transaction they describe, a Merkle tree of them in files, and proofs that can
be checked without Groundplan.

This package decides neither what is worth recording nor who may read an entry: its callers do.
"""

from groundplan.core.audit.entry import OPERATOR, SYSTEM, Acting, ActingAs, Entry, gateway_actor, person_actor
from groundplan.core.audit.store import record, record_listed, record_many

__all__ = [
    "OPERATOR",
    "SYSTEM",
    "Acting",
    "ActingAs",
    "Entry",
    "gateway_actor",
    "person_actor",
    "record",
    "record_listed",
    "record_many",
]
