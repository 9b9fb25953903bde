"""Keys of replays: `0091_replay_keys.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
