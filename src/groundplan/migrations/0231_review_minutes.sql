-- Whether the minutes of a decision are what the reviewer said; otherwise they are counted, from the first look on.
ALTER TABLE held_call ADD COLUMN minutes_said boolean NOT NULL DEFAULT false;
