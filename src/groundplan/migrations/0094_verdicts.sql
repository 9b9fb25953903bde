-- What is said of answers is read by its time: whether learned routers still expect what is seen.
CREATE INDEX outcome_said ON outcome (at DESC) WHERE accepted IS NOT NULL;
-- Answers given by meaning, by day: how often they were looked up, given, checked against a fresh answer, and found wrong.
CREATE TABLE semantic_day (
  day date NOT NULL, workload text NOT NULL, looked bigint NOT NULL DEFAULT 0, given bigint NOT NULL DEFAULT 0,
  checked bigint NOT NULL DEFAULT 0, wrong bigint NOT NULL DEFAULT 0, spent_us bigint NOT NULL DEFAULT 0,
  saved_usd numeric(30,12) NOT NULL DEFAULT 0, PRIMARY KEY (day, workload));

GRANT SELECT, INSERT, UPDATE ON semantic_day TO %(db)s_gateway;
GRANT SELECT ON semantic_day TO %(db)s_control;
