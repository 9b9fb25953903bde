"""Credentials that stand once in LiteLLM's configuration and are named by its models (`credential_list`).

Reads them; what of a key is taken, and that none is copied, is the business of whoever reads a model.
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
"""What is written, in small letters, where a server asks for no key and a client wants one."""


@dataclass(frozen=True, slots=True)
class Joined(Node):
    """A node of which what is missing is looked for in another one."""

    behind: Node | None = None

    def get(self, key: str) -> Node | None:
        """As `Node.get`, then of the other one."""
        own = Node.get(self, key)
        return own if own is not None or self.behind is None else self.behind.get(key)


def credentials_of(config: Config) -> dict[str, Node]:
    """Name -> values of each credential."""
    found: dict[str, Node] = {}
    for each in config.items("credential_list"):
        name, values = each.get("credential_name"), each.get("credential_values")
        if name is not None and values is not None and (text := name.text()):
            found[text] = values
    return found


def joined(params: Node, credentials: Mapping[str, Node], findings: list[Finding]) -> Node:
    """Parameters of a model, with those of the credential that it names."""
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
    return Joined(params.document, params.path, params.value, params.notes, values)
