"""Shared credentials of LiteLLM's configuration (`credential_list`), to which models refer by name.

Only reads them; that no key is copied is ensured where models are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from groundplan.catalog.imports.node import Config, Node
from groundplan.catalog.imports.verdict import CHANGED, NEEDED, Finding

PLACEHOLDERS = frozenset(
    {
        "",
        "none",
        "null",
        "empty",
        "dummy",
        "fake",
        "fake-key",
        "sk-fake",
        "not-needed",
        "not-required",
        "no-key",
        "no-key-required",
        "sk-no-key-required",
        "na",
        "n/a",
        "placeholder",
        "local",
        "lm-studio",
        "ollama",
        "vllm",
    }
)
"""Placeholders, in lower case, for a key that a client requires and its server does not."""


@dataclass(frozen=True, slots=True)
class JoinedNode(Node):
    """A node with another one as fallback for missing keys."""

    behind: Node | None = None

    def get(self, key: str) -> Node | None:
        """As `Node.get`, then from the fallback."""
        own = Node.get(self, key)
        return own if own is not None or self.behind is None else self.behind.get(key)


def read_credentials(config: Config) -> dict[str, Node]:
    """Credentials: name -> node of its values."""
    found: dict[str, Node] = {}
    for each in config.items("credential_list"):
        name, values = each.get("credential_name"), each.get("credential_values")
        if name is not None and values is not None and (text := name.text()):
            found[text] = values
    return found


def join_credential(params: Node, credentials: Mapping[str, Node], findings: list[Finding]) -> Node:
    """Parameters of a model, completed by the credential that it names."""
    named = params.get("litellm_credential_name")
    text = named.text() if named is not None else None
    if named is None or not text:
        return params
    if (values := credentials.get(text)) is None:
        here = "this credential is not in the file: it was added in LiteLLM's UI"
        todo = "Write key: env:NAME, and url: where it has one, at the deployment."
        findings.append(Finding(NEEDED, "litellm_params.litellm_credential_name", here, todo, named.where))
        return params
    here = "key: and url: of each deployment that names it"
    findings.append(Finding(CHANGED, "litellm_params.litellm_credential_name", here, "", named.where))
    return JoinedNode(params.document, params.path, params.value, params.notes, values)
