"""Asks the declared witnesses to co-sign the newest checkpoint; one that refuses or does not answer becomes a finding.

A witness that does not answer stops nothing: the log continues, and `groundplan audit verify` reports the age of the
newest co-signature. Two control processes may ask at once; a witness signs any checkpoint that extends the one it
signed before.
"""

from __future__ import annotations

from groundplan.api.context import Services
from groundplan.core.audit.checkpoint import VerifierKey, parse_checkpoint, parse_key, parse_note
from groundplan.core.audit.proof import read_checkpoint
from groundplan.core.audit.witness import kept_note, request_cosignature
from groundplan.core.errors import GroundplanError, Invalid, NotFound
from groundplan.ledger import finding_store
from groundplan.ledger.finding import Finding

ASK_SECONDS = 5.0
KIND = "governance.witness"


def declared_witnesses(services: Services) -> list[tuple[str, VerifierKey]]:
    """(URL, key) of each witness in the settings. Raises `Invalid` (`witness_setting`)."""
    witnesses: list[tuple[str, VerifierKey]] = []
    for item in services.settings.witnesses:
        url, _, key = item.partition(" ")
        if not url.startswith(("http://", "https://")) or not parse_key(key).cosigns:
            raise Invalid(
                f"no witness: {item!r}",
                code="witness_setting",
                hint="GROUNDPLAN_WITNESSES='https://HOST KEY', with the key that `groundplan-witness` prints.",
            )
        witnesses.append((url, parse_key(key)))
    return witnesses


def ask_witnesses(services: Services) -> int:
    """Ask every witness whose last signature is for an older checkpoint; returns how many signed."""
    witnesses = declared_witnesses(services)
    if not witnesses:
        return 0
    signed = 0
    problems: list[Finding] = []
    for url, witness in witnesses:
        try:
            if not _is_newest(services, witness):
                request_cosignature(services.home.audit, url, witness)
                signed += 1
        except NotFound:
            continue  # there is no checkpoint yet
        except GroundplanError as error:
            problems.append(_problem(witness, error))
    with services.transaction() as conn:
        finding_store.replace_findings(conn, problems, kinds=(KIND,))
    return signed


def _is_newest(services: Services, witness: VerifierKey) -> bool:
    newest = parse_note(read_checkpoint(services.home.audit))
    stored_note = kept_note(services.home.audit, witness)
    return stored_note is not None and parse_checkpoint(stored_note.text) == parse_checkpoint(newest.text)


def _problem(witness: VerifierKey, error: GroundplanError) -> Finding:
    return Finding(
        kind=KIND,
        severity="critical" if isinstance(error, Invalid) else "medium",
        subject=f"witness/{witness.name}",
        message=f"The audit log is not co-signed: {error.message}.",
        hint=error.hint,
    )
