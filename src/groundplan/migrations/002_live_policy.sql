-- Live policy: what takes effect at every gateway at once and without a new blueprint: API keys, kill switches, and the
-- gateways that acknowledge them. It does not hold what is declared (004) or who people are (001).

-- Every change of live policy takes its number from next_policy_number(), in its own transaction: that locks the row of
-- policy_epoch, so numbers become visible in their order, which those of a plain sequence do not.
CREATE TABLE policy_epoch (one boolean PRIMARY KEY DEFAULT true CHECK (one), number bigint NOT NULL);
INSERT INTO policy_epoch (number) VALUES (0);

CREATE TABLE policy_change (
  number bigint PRIMARY KEY,
  kind text NOT NULL,
  subject text NOT NULL,
  stops boolean NOT NULL DEFAULT false,
  at timestamptz NOT NULL DEFAULT now()
);

-- The only way to a number, whoever needs one. A role that may write to these tables could set the number so high that
-- none can follow it, and nothing could be stopped or revoked any more. NOTIFY groundplan_policy carries the number.
CREATE FUNCTION next_policy_number(kind text, subject text, stops boolean) RETURNS bigint LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE n bigint;
BEGIN
  UPDATE policy_epoch SET number = number + 1 RETURNING number INTO n;
  INSERT INTO policy_change (number, kind, subject, stops) VALUES (n, kind, subject, stops);
  PERFORM pg_notify('groundplan_policy', n::text);
  RETURN n;
END $$;

-- API keys: what each may do and spend, and which key it replaced. `family` is the first key of a line of rotated keys,
-- whose budget and limits the later ones share.
CREATE TABLE api_key (
  id uuid PRIMARY KEY,
  hash bytea NOT NULL UNIQUE,
  prefix text NOT NULL,
  workload text NOT NULL,
  person_id uuid REFERENCES person,
  acts_for_others boolean NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL DEFAULT now(),
  created_by text NOT NULL,
  expires_at timestamptz,
  revoked_at timestamptz,
  family uuid,
  replaced_by uuid REFERENCES api_key,
  tags text[] NOT NULL DEFAULT '{}',
  networks text[] NOT NULL DEFAULT '{}',
  models text[] NOT NULL DEFAULT '{}',
  budget_usd numeric(30,12) CHECK (budget_usd >= 0),
  budget_period text,
  purpose text NOT NULL DEFAULT '',  -- of keys that only the control process holds, what for
  CHECK ((budget_usd IS NULL) = (budget_period IS NULL))
);

-- The keys of a family are looked up whenever a key is made.
CREATE INDEX api_key_family ON api_key (family);

-- A switch for security (`streams`) also ends answers that are under way.
CREATE TABLE kill_switch (
  id uuid PRIMARY KEY,
  -- company | provider/N | model/N | workload/N | deployment/N | source/N | tool/N | key/ID | site/N
  scope text NOT NULL,
  reason text NOT NULL,
  by text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  lifted_at timestamptz,
  lifted_by text,
  streams boolean NOT NULL DEFAULT false
);

-- A person wants a stopped scope to run again; another person must want it, too.
CREATE TABLE lift_wish (
  scope text PRIMARY KEY,
  by text NOT NULL,
  proven boolean NOT NULL,
  reason text NOT NULL,
  at timestamptz NOT NULL DEFAULT now()
);

-- Gateway workers, by epoch; a batch that holds budget has a row here, too (host 'batch').
CREATE TABLE gateway (
  epoch uuid PRIMARY KEY,
  host text NOT NULL,
  home text NOT NULL,
  pid int NOT NULL,
  started_at timestamptz NOT NULL DEFAULT now(),
  heartbeat_at timestamptz NOT NULL DEFAULT now(),
  policy_ack bigint NOT NULL DEFAULT 0,
  blueprint int NOT NULL DEFAULT 0,
  ready boolean NOT NULL DEFAULT false,
  state text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'stopped', 'fenced')),
  -- how the worker sees each deployment, sent with its heartbeat: {"deployment": "open"}; those not named are closed
  health jsonb NOT NULL DEFAULT '{}'
);

-- Live workers are asked for by every page and every stop, among all that ever ran.
CREATE INDEX gateway_live ON gateway (epoch) WHERE state = 'live';

-- Workers whose HOME somebody has declared lost for good. The shipper that runs next ends what the ledger has of their
-- calls.
CREATE TABLE lost_worker (
  epoch uuid PRIMARY KEY REFERENCES gateway,
  declared_by text NOT NULL,
  declared_at timestamptz NOT NULL DEFAULT now()
);

-- Rights. The shipper throws the kill switch of a workload whose attempt cost more than its bound: the shipper is who
-- sees it.
GRANT SELECT, INSERT, UPDATE, DELETE ON api_key, kill_switch, lift_wish, gateway TO %(db)s_control;
GRANT SELECT, INSERT ON lost_worker TO %(db)s_control;
GRANT SELECT ON policy_epoch, policy_change TO %(db)s_control, %(db)s_gateway;
GRANT SELECT ON api_key, kill_switch TO %(db)s_gateway;
GRANT SELECT, INSERT, UPDATE ON gateway TO %(db)s_gateway, %(db)s_shipper;
GRANT SELECT, INSERT ON kill_switch TO %(db)s_shipper;
GRANT SELECT ON lost_worker TO %(db)s_shipper;
REVOKE ALL ON FUNCTION next_policy_number FROM PUBLIC;
GRANT EXECUTE ON FUNCTION next_policy_number TO %(db)s_control, %(db)s_shipper;
