-- Keys with which a run was replayed, whose charges are what it cost.
ALTER TABLE replay_run ADD COLUMN keys uuid[] NOT NULL DEFAULT '{}';
