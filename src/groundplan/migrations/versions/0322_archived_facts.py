"""What has left for Parquet stays known by its ids: `0322_archived_facts.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
