"""Exceptions from company rules wait as changes do: `0132_exceptions_wait_as_changes.sql`. No way back."""

from __future__ import annotations

from groundplan.migrations.chain import previous, run_statements

revision = "0132_exceptions_wait_as_changes"
down_revision = previous(__file__)
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the statements."""
    run_statements(__file__)


def downgrade() -> None:
    """Refused: restore a backup instead."""
    raise NotImplementedError("schema steps have no way back; restore a backup into an empty HOME")
