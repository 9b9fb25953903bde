"""Who somebody is, by lists: `0148_standing_by_arrays.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
