-- Workers whose HOME somebody has declared lost for good: whoever ships next ends what the ledger knows of their calls.
CREATE TABLE lost_worker (
  epoch uuid PRIMARY KEY REFERENCES gateway, declared_by text NOT NULL, declared_at timestamptz NOT NULL DEFAULT now());
GRANT SELECT, INSERT ON lost_worker TO %(db)s_control;
GRANT SELECT ON lost_worker TO %(db)s_shipper;
