-- What checks of answers by meaning found, by region of questions: how often a match was compared with a fresh answer, how often
-- it was wrong, and the score that a match must have since. `first`: the signs of the vector of the region's first question,
-- one bit each; `terms`: the settings under which matches were found, so that others begin anew.
CREATE TABLE semantic_region (
  workload text NOT NULL, terms text NOT NULL, first bytea NOT NULL CHECK (octet_length(first) <= 512),
  checked bigint NOT NULL CHECK (checked >= 0), wrong bigint NOT NULL CHECK (wrong BETWEEN 0 AND checked),
  raised double precision NOT NULL DEFAULT '-Infinity', at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (workload, terms, first));

GRANT SELECT, INSERT, UPDATE ON semantic_region TO %(db)s_gateway;
GRANT SELECT ON semantic_region TO %(db)s_control; -- for backups
