"""Values of the environment variables that LiteLLM's configuration refers to. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from groundplan.catalog.imports.node import Node


@dataclass(frozen=True, slots=True)
class Variables:
    """`given`: values that the user said, which go before those that the file declares for its environment."""

    given: Mapping[str, str]
    declared: Mapping[str, Node]

    def value(self, name: str) -> str | None:
        """The value of a variable; None if it is not known, as where it is in another variable."""
        given, declared = self.given.get(name), self.declared.get(name)
        return given or (declared.text() if declared is not None and declared.variable is None else None)

    def resolve(self, node: Node) -> str | None:
        """The text of a node, or the value of the variable that it names."""
        return node.text() if node.variable is None else self.value(node.variable)

    def is_mentioned(self, name: str) -> bool:
        """Whether a variable has a value, or is declared with one that is not known."""
        return bool(self.value(name)) or name in self.declared
