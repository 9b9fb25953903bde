"""Hints for values of the wrong form and for keys that other tools have under another name."""

from __future__ import annotations

from groundplan.catalog.allocation import COVERS
from groundplan.catalog.money import BUDGET_COVERS, LIMIT_COVERS

_COLUMN = "Write the name of a column: letters, digits and underscores."
PATTERNS = {
    r"^[a-z0-9][a-z0-9-]{0,62}$": "Use lower-case letters, digits and hyphens, such as staff-assistant.",
    r"^[a-z0-9][a-z0-9-]{0,30}$": "Use at most 31 lower-case letters, digits and hyphens, such as tickets.",
    r"^[a-z0-9][a-z0-9-]{0,62}(@[1-9][0-9]*)?$": "Write a name, or a name and its version, such as staff-assistant@1.",
    r"^[a-z0-9][a-z0-9-]{0,62}@[1-9][0-9]*$": "Write a name and its version, such as router@1.",
    r"^[A-Z][A-Z0-9-]{1,9}$": "Use capitals, such as EU, US or an ISO country such as NO.",
    r"^[A-Z]{2}$": "Write an ISO country of two capitals, such as NO.",
    r"^[A-Z]{3}$": "Write a currency of three capitals, such as USD.",
    r"^[^\x00-\x1f\x7f]+$": "Write one line without control characters.",
    r"^[A-Za-z0-9@][A-Za-z0-9._:/@-]{0,127}$": "Write the model's name without spaces, such as openai/gpt-4.1-mini.",
    r"^[A-Za-z0-9@/][A-Za-z0-9._:/@-]{0,127}$": "Write the provider's name of the model, without spaces.",
    r"^[a-z0-9][a-z0-9:._-]{0,62}$": "Write a provider's name of a region, such as eu-north-1.",
    r"^(any|[0-9]{2,5}x[0-9]{2,5}(/[a-z]{1,20})?)$": "Write any, or a size with or without quality: 1024x1024/high.",
    r"^file:/[^\x00-\x1f]{1,1000}$": "Write a file by its full path: file:/etc/groundplan/ca.pem.",
    r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?$": "Write a host name, such as models.acme.example.",
    r"^[A-Za-z0-9_.-]{1,64}\*?$": "Write a tool's name; * at its end stands for any ending.",
    r"^[\x21-\x29\x2b-\x7e]{1,200}\*?$": "Write one word; * at its end stands for any ending.",
    r"^[$A-Za-z]{1,40}$": "Write one keyword of letters, such as maxLength.",
    r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,39}$": "Write the id of a control, such as A.5.1.",
    r"^[A-Za-z0-9][A-Za-z0-9 ._:/@+-]{0,127}$": "Write a short value of letters, digits and . _ : / @ + -",
    r"^[a-z_]{1,40}$": "Write the name of a fact: lower-case letters and underscores.",
    r"^[A-Za-z0-9._%+@-]{1,200}$": "Write a person, a group or a team.",
    r"^[^\x00-\x20\x7f@]+$": "Write a URL without spaces and without credentials.",
    r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$": "Write the name of a branch, such as main.",
    r"^(ssh|ecdsa)-[a-z0-9-]+ [A-Za-z0-9+/=]{40,2000}$": "Write the key as `ssh-keyscan HOST` prints it, without host.",
    r"^[A-Za-z_][A-Za-z0-9_.]{0,126}$": "Write the name of a table, such as public.articles.",
    r"^[A-Za-z_][A-Za-z0-9_]{0,62}$": _COLUMN,
    r"^[0-9a-f]{64}$": "Write the 64 hexadecimal digits that `groundplan routing list` shows.",
    r"^(company|(workload|source)/[a-z0-9][a-z0-9-]{0,62})$": "Write company, workload/NAME or source/NAME.",
    COVERS: "Write company, team/NAME, workload/NAME, deployment/NAME or site/NAME.",
    BUDGET_COVERS: "Write company, team/NAME, workload/NAME or key/ID.",
    LIMIT_COVERS: "Write company, team/NAME, workload/NAME, deployment/NAME, model/NAME, key/ID, user/E-MAIL, "
    "or user or key for each of them.",
}
"""pattern -> hint"""
FOREIGN_KEYS = {
    "api_key": "key", "api_base": "url", "base_url": "url", "endpoint": "url", "rpm": "requests", "tpm": "tokens",
    "max_parallel_requests": "concurrent", "max_budget": "limit", "max_tokens": "max_output", "models": "deployments",
    "max_completion_tokens": "max_output", "max_retries": "retries", "num_retries": "retries", "provider": "api",
}  # fmt: skip
"""Key of another tool -> the one here that says the same, in those kinds that have it."""
