"""New attempts are found by their time: `0278_newest_attempts.sql`. There is no way back from it."""

from __future__ import annotations

from groundplan.migrations.chain import previous, run_statements

revision = "0278_newest_attempts"
down_revision = previous(__file__)
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the statements."""
    run_statements(__file__)


def downgrade() -> None:
    """Refused: restore a backup instead."""
    raise NotImplementedError("schema steps have no way back; restore a backup into an empty HOME")
