"""What is reported of a setting of LiteLLM's configuration, by its rule in `settings`. Secrets are never copied."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from groundplan.catalog.imports import litellm_settings
from groundplan.catalog.imports.naming import one_line
from groundplan.catalog.imports.node import Node
from groundplan.catalog.imports.verdict import SECRET, Finding

_FILE = re.compile(r"(?:[A-Za-z]:[\\/]|\.{0,2}/)?[\w. \\/-]{1,200}\.(?:json|pem|key|crt|p12)")
"""The name of a file, in which a secret is and not here."""
_IN_ADDRESS = re.compile(
    r"://[^/@\s]*:[^/@\s$<{][^/@\s]*@|[?&][\w-]*(?:key|token|secret|password)=[^&\s$<{]", re.ASCII | re.IGNORECASE
)
"""A password, or a key in the query, of an address; no variable or example in its place."""
REPLACE_SECRET = "Let its issuer replace it, as it stood in a file."


def setting_finding(what: str, key: str, rule: litellm_settings.Rule, node: Node) -> Finding:
    """The finding for a setting by its rule, or one about a secret if its value is a literal secret."""
    if is_secret(key, node):
        here = f"a secret stands in the file: not copied. {rule.here[:1].upper()}{rule.here[1:]}"
        return Finding(SECRET, what, here, REPLACE_SECRET, node.where_key)
    return Finding(rule.state, what, rule.here, rule.todo, node.where_key)


def secrets_below(what: str, node: Node) -> list[Finding]:
    """Literal secrets in the mappings of a setting, however deep."""
    below = list(node.items()) if isinstance(node.value, dict) else []
    below += [("", each) for each in node.entries()] if isinstance(node.value, list) else []
    found = []
    for key, each in below:
        name = f"{what}.{one_line(key)}" if key else what
        if isinstance(each.value, str):
            secret = setting_finding(name, key, litellm_settings.UNKNOWN, each)
            found += [replace(secret, here="a secret stands in the file: not copied")] if secret.state == SECRET else []
        else:
            found += secrets_below(name, each)
    return found


def is_secret(key: str, node: Node) -> bool:
    """Whether the value is a literal text under a key that holds secrets, or an address with a password."""
    if node.is_hidden or (isinstance(node.value, str) and _IN_ADDRESS.search(node.value) is not None):
        return True
    return litellm_settings.may_be_secret(key) and any(_literals(node))


def _literals(node: Node) -> Iterator[bool]:
    """For each text in the value, whether it is literal: no reference to a variable or file."""
    if isinstance(node.value, str):
        empty = node.value.lower() in ("", "true", "false", "none")
        yield node.variable is None and not empty and _FILE.fullmatch(node.value.strip()) is None
    elif isinstance(node.value, list):
        for entry in node.entries():
            yield from _literals(entry)
    elif isinstance(node.value, dict) and node.path[-1:] == ("alert_to_webhook_url",):
        for entry in dict(node.items()).values():
            yield from _literals(entry)
