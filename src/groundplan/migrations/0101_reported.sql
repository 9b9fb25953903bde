-- Versions that upstreams say that they are.
CREATE TABLE model_reported (
  deployment text NOT NULL, asked text NOT NULL,               -- the deployment's upstream_model
  model text NOT NULL, fingerprint text NOT NULL,
  first_at timestamptz NOT NULL, last_at timestamptz NOT NULL, PRIMARY KEY (deployment, asked, model, fingerprint));
GRANT SELECT, INSERT, UPDATE ON model_reported TO %(db)s_gateway;
GRANT SELECT, DELETE ON model_reported TO %(db)s_control;
