"""Rights that no code uses are gone, and numbers come from the database: `0379_rights_that_nobody_uses.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
