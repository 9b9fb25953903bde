"""Evidence of controls: `0077_evidence.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
