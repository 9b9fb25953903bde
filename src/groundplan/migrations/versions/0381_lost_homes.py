"""A HOME can be declared lost: `0381_lost_homes.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
