-- Releases: signed blueprints, changes that wait for approval, approvals, exceptions from company rules, and the mail
-- that asks for a decision. The content of a blueprint is opaque here (`body`); evidence and guardrails are in 005.

CREATE TABLE blueprint (
  number int PRIMARY KEY,
  body bytea NOT NULL,
  digest text NOT NULL,
  signature text NOT NULL,
  key_id text NOT NULL,
  sources jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  created_by text NOT NULL,
  reason text NOT NULL,
  rollback_of int REFERENCES blueprint,
  genesis boolean NOT NULL DEFAULT false
);

-- Approvals end: `expires_on` is the last day on which what was approved holds, `grace_until` the last day on which
-- production that is not restricted may go on, flagged. `seats` is how many different people must agree. Changes of
-- other types than the blueprint's own (model, data, policy, exception, rollout, evidence) are bound to the digest of
-- what was declared, in `summary`.
CREATE TABLE change (
  id uuid PRIMARY KEY,
  digest text NOT NULL,
  type text NOT NULL,
  base int NOT NULL,
  sources jsonb NOT NULL,
  summary jsonb NOT NULL,
  needs jsonb NOT NULL,
  requested_by text NOT NULL,
  requested_at timestamptz NOT NULL DEFAULT now(),
  state text NOT NULL CHECK (state IN ('pending', 'applied', 'refused', 'withdrawn', 'superseded', 'expired')),
  decided_at timestamptz,
  blueprint int REFERENCES blueprint,
  expires_on date,
  grace_until date,
  seats int NOT NULL DEFAULT 1,
  reason text NOT NULL DEFAULT '',
  renews uuid REFERENCES change
);
CREATE INDEX change_expiry ON change (expires_on) WHERE state = 'applied';
CREATE INDEX change_of_evidence ON change (digest) WHERE type = 'evidence';
CREATE INDEX change_of_part ON change (type) WHERE type IN ('model', 'prompt', 'data', 'rollout');

CREATE TABLE approval (
  id uuid PRIMARY KEY,
  change_id uuid NOT NULL REFERENCES change,
  digest text NOT NULL,
  duty text NOT NULL,
  subject text NOT NULL,
  person_id uuid NOT NULL REFERENCES person,
  decision text NOT NULL CHECK (decision IN ('approved', 'refused')),
  comment text NOT NULL,
  unseparated boolean NOT NULL,
  demo boolean NOT NULL DEFAULT false,
  at timestamptz NOT NULL DEFAULT now(),
  withdrawn_at timestamptz,
  proof text NOT NULL DEFAULT 'recovery',
  UNIQUE (change_id, subject, duty, person_id)
);

-- What gateways know of approvals of models, prompts, sources and rollouts: those that hold, and those that held once.
-- `price` is what a model cost when it was approved; gateways compare it with what it costs now.
CREATE VIEW part_approval AS
  SELECT digest, state, expires_on, grace_until, summary -> 'price' AS price FROM change
  WHERE type IN ('model', 'prompt', 'data', 'rollout') AND state IN ('applied', 'withdrawn', 'expired')
    AND expires_on IS NOT NULL;

-- An exception from a company rule. It waits for its approvals as the change of the same id, which says who asked, who
-- decided and why; this table has only what gateways need.
CREATE TABLE policy_exception (
  id uuid PRIMARY KEY,
  rule text NOT NULL,
  workload text NOT NULL,
  person text NOT NULL DEFAULT '',  -- e-mail address; empty: everybody in the workload
  until timestamptz NOT NULL,
  ended_by text,
  ended_at timestamptz,
  CONSTRAINT policy_exception_change FOREIGN KEY (id) REFERENCES change
);
CREATE INDEX policy_exception_open ON policy_exception (until);

-- What gateways read: exceptions that are approved and not over.
CREATE VIEW exception_held AS
  SELECT e.rule, e.workload, e.person, e.until FROM policy_exception e JOIN change c ON c.id = e.id
  WHERE c.state = 'applied' AND e.until > now();

-- A decision about a change that somebody made at a command line. It counts once the person has proved that they are
-- there.
CREATE TABLE terminal_request (
  id uuid PRIMARY KEY,
  hash bytea NOT NULL,
  code text NOT NULL,
  change_id uuid NOT NULL REFERENCES change,
  digest text NOT NULL,
  decision text NOT NULL CHECK (decision IN ('approve', 'refuse')),
  comment text NOT NULL DEFAULT '',
  asked_by text NOT NULL,
  created_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  person_id uuid REFERENCES person,
  proof text,
  confirmed_at timestamptz,
  used_at timestamptz
);
CREATE INDEX terminal_request_open ON terminal_request (expires_at) WHERE used_at IS NULL;

-- Mail that only links to the console: queued in the transaction of what it announces, sent by one process.
CREATE TABLE mail (
  id uuid PRIMARY KEY,
  mark text NOT NULL UNIQUE,
  person_id uuid NOT NULL REFERENCES person,
  subject text NOT NULL,
  path text NOT NULL,
  queued_at timestamptz NOT NULL DEFAULT now(),
  sent_at timestamptz,
  tries int NOT NULL DEFAULT 0,
  next_try timestamptz NOT NULL DEFAULT now(),
  problem text
);
CREATE INDEX mail_waiting ON mail (next_try) WHERE sent_at IS NULL;

-- Rights
GRANT SELECT, INSERT, UPDATE, DELETE ON change, approval, policy_exception, terminal_request, mail TO %(db)s_control;
GRANT SELECT, INSERT ON blueprint TO %(db)s_control;
GRANT SELECT ON part_approval TO %(db)s_control, %(db)s_gateway;
GRANT SELECT ON exception_held TO %(db)s_gateway;
GRANT SELECT ON blueprint TO %(db)s_gateway, %(db)s_shipper;
