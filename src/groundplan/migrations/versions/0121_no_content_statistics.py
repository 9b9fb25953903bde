"""No samples of content in the planner's statistics: `0121_no_content_statistics.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
