"""Documents and findings by who answers for them: `0360_owners_of_documents.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
