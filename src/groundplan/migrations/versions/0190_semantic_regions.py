"""What checks of answers by meaning found: `0190_semantic_regions.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
