"""Minutes of reviewers, counted or said: `0231_review_minutes.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
