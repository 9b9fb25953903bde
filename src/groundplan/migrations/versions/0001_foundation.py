"""The first schema: `0001_foundation.sql` with the name of the database put in. There is no way back from it."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0001_foundation"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the statements as one text, as PostgreSQL reads it."""
    connection = op.get_bind().connection.driver_connection
    assert connection is not None
    name = connection.info.dbname
    text = Path(__file__).parent.with_name("0001_foundation.sql").read_text(encoding="utf-8")
    connection.execute(text % {"db": name})
    connection.execute(f"REVOKE ALL ON alembic_version FROM {name}_control")


def downgrade() -> None:
    """Refused: restore a backup instead."""
    raise NotImplementedError("the first schema has no way back; restore a backup into an empty HOME")
