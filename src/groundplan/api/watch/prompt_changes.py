"""Background check: findings on prompts whose text changed under the same version.

Checked for each new blueprint. Nothing is refused: production needs an approval of the text anyway.
"""

from __future__ import annotations

from groundplan.api.context import Services
from groundplan.api.served_blueprint import current_or_none
from groundplan.ledger import finding_store
from groundplan.release import prompt_history, prompts
from groundplan.release.prompts import PROMPT_CHANGED

LOOK_SECONDS = 5.0


class PromptChanges:
    """Remembers the last checked blueprint."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._checked = 0

    def update_findings(self) -> None:
        """Bring the findings up to date."""
        with self._services.transaction() as conn:
            blueprint = current_or_none(conn)
            if blueprint is None or blueprint.number == self._checked:
                return
            versions = prompt_history.prompt_versions(conn)
            finding_store.replace_findings(conn, prompts.reworded_prompts(versions, blueprint), kinds=(PROMPT_CHANGED,))
        self._checked = blueprint.number
