"""A journal that comes back corrects what was written off: `0410_told_after_the_end.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
