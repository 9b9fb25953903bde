"""What citations are worth, and documents in conflict: `0086_citations_conflicts.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
