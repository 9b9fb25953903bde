"""The audit log: entries written with what they tell, a Merkle tree of them in files, proofs that need no Groundplan.

This package does not decide what is worth recording, and it never shows who may read an entry: its callers do.
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
