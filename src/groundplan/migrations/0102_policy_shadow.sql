-- What rules that are not enforced would have refused, by hour; examples by the id of their call only.
CREATE TABLE policy_shadow (
  policy text NOT NULL, digest text NOT NULL, hour timestamptz NOT NULL, looked_at bigint NOT NULL, refused bigint NOT NULL,
  by_workload jsonb NOT NULL, rules jsonb NOT NULL, calls jsonb NOT NULL, PRIMARY KEY (policy, digest, hour));
GRANT SELECT, INSERT, UPDATE, DELETE ON policy_shadow TO %(db)s_control;
