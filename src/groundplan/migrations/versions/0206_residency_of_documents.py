"""Documents stay where they may be: `0206_residency_of_documents.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
