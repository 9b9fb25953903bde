"""Newest pages are summarized where sums are folded: `0281_newest_summarized.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
