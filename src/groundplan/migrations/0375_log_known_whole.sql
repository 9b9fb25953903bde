-- Entries are never deleted, so what was once seen to be whole stays so. All of the log was counted for it whenever somebody
-- began to write it, and nothing entered it meanwhile.
CREATE TABLE audit_whole (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  upto bigint NOT NULL);                         -- of every leaf index below it there is an entry
INSERT INTO audit_whole (upto) VALUES (0);
GRANT SELECT, UPDATE (upto) ON audit_whole TO %(db)s_control;
