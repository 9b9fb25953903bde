-- Cached answers need no log of PostgreSQL, which shares its disk with the journals, and are in no backup: what was
-- cleared or stopped since would come back with it.
ALTER TABLE answer SET UNLOGGED;
