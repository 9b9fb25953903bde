-- Governance while calls run: evidence of controls, calls held for a person, guardrail counts, rules tried out, legal
-- holds on people and requests for erasure. Approvals are in 004, documents and their holds in 014.

-- Evidence that controls are satisfied by. It is never changed, only withdrawn; each piece is in the audit log by its
-- digest. `approval` is the digest of the change that asks for it: where the company has evidence approved, it counts
-- while that change is applied.
CREATE TABLE evidence (
  id uuid PRIMARY KEY,
  what text NOT NULL,
  subject text NOT NULL,
  type text NOT NULL CHECK (type IN ('query', 'test', 'approval', 'drill', 'review', 'document')),
  collector text NOT NULL,
  at timestamptz NOT NULL,
  valid_until timestamptz NOT NULL CHECK (valid_until > at),
  holds boolean NOT NULL,
  says text NOT NULL,
  detail jsonb NOT NULL,
  digest text NOT NULL,
  audit_entry uuid NOT NULL REFERENCES audit_entry,
  link text,
  withdrawn_at timestamptz,
  withdrawn_by text,
  approval text
);
CREATE INDEX evidence_newest ON evidence (subject, what, at DESC, id DESC);

-- Looked up for each audit entry that is about to leave.
CREATE INDEX evidence_entry ON evidence (audit_entry);

-- Answers that wait for a person before they are sent, and tool calls that wait for an approval. Texts are sealed under
-- the key of the person they are about, and deleted once it is decided.
CREATE TABLE held_call (
  id uuid PRIMARY KEY,
  kind text NOT NULL CHECK (kind IN ('answer', 'tool')),
  workload text NOT NULL,
  key_id uuid NOT NULL,
  person_id uuid,
  gateway uuid NOT NULL,
  subject text NOT NULL DEFAULT '',  -- deployment, or server/tool
  asked text,
  said text,
  digest text NOT NULL DEFAULT '',
  at timestamptz NOT NULL DEFAULT now(),
  due_at timestamptz NOT NULL,
  reviewers text[] NOT NULL DEFAULT '{}',
  release_after boolean NOT NULL DEFAULT false,
  state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'released', 'refused', 'lapsed', 'used', 'gone')),
  opened_at timestamptz,
  opened_by text,
  decided_by text,
  decided_at timestamptz,
  reason text,
  minutes numeric(10, 2),
  -- whether a reviewer stated the minutes; otherwise they count from the first look
  minutes_said boolean NOT NULL DEFAULT false
);
CREATE INDEX held_call_waiting ON held_call (due_at) WHERE state = 'waiting';
CREATE INDEX held_call_at ON held_call (at);
CREATE INDEX held_call_again ON held_call (key_id, digest) WHERE kind = 'tool';

-- How often each guardrail ran and found something, by day.
CREATE TABLE guard_count (
  day date NOT NULL,
  workload text NOT NULL,
  place text NOT NULL,
  name text NOT NULL,
  done text NOT NULL,
  shadow boolean NOT NULL,
  calls bigint NOT NULL DEFAULT 0,
  finds bigint NOT NULL DEFAULT 0,
  last_call uuid,
  last_at timestamptz,
  PRIMARY KEY (day, workload, place, name, done, shadow)
);

-- What rules that are not enforced would have refused, by hour. Examples are ids of calls only.
CREATE TABLE policy_shadow (
  policy text NOT NULL,
  digest text NOT NULL,
  hour timestamptz NOT NULL,
  looked_at bigint NOT NULL,
  refused bigint NOT NULL,
  by_workload jsonb NOT NULL,
  rules jsonb NOT NULL,
  calls jsonb NOT NULL,
  PRIMARY KEY (policy, digest, hour)
);

-- Versions of models as upstreams report them.
CREATE TABLE model_reported (
  deployment text NOT NULL,
  asked text NOT NULL,  -- the deployment's upstream_model
  model text NOT NULL,
  fingerprint text NOT NULL,
  first_at timestamptz NOT NULL,
  last_at timestamptz NOT NULL,
  PRIMARY KEY (deployment, asked, model, fingerprint)
);

-- A legal hold on what is kept of a person's own calls: while it stands, none of it is erased, neither on request nor
-- by its time.
CREATE TABLE person_hold (
  id uuid PRIMARY KEY,
  person_id uuid NOT NULL REFERENCES person,
  reason text NOT NULL,
  by text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  ended_at timestamptz,
  ended_by text
);
CREATE UNIQUE INDEX person_hold_open ON person_hold (person_id) WHERE ended_at IS NULL;

-- A request to erase a person waits for somebody who may decide it. What names the person is deleted when it is
-- decided; the receipt stays.
CREATE TABLE erasure_request (
  id uuid PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT now(),
  by text NOT NULL,
  asked jsonb,
  state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'done', 'refused')),
  decided_at timestamptz,
  decided_by text,
  receipt text,
  CHECK ((state = 'waiting') = (asked IS NOT NULL))
);

-- Rights
GRANT SELECT, INSERT, UPDATE, DELETE ON held_call, guard_count, policy_shadow TO %(db)s_control;
GRANT SELECT, INSERT, UPDATE ON person_hold, erasure_request TO %(db)s_control;
GRANT SELECT, INSERT ON evidence TO %(db)s_control;
GRANT SELECT, DELETE ON model_reported TO %(db)s_control;
GRANT SELECT, INSERT, UPDATE ON held_call, guard_count, model_reported TO %(db)s_gateway;
GRANT UPDATE (withdrawn_at, withdrawn_by) ON evidence TO %(db)s_control;
