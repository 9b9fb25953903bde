"""What a legal hold keeps of documents that change or go: `0210_held_versions.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
