-- What governs calls at run time beside the blueprint: exceptions from company rules, tool calls and answers that wait for a
-- person, and how often each guardrail found something.
CREATE TABLE policy_exception (
  id uuid PRIMARY KEY, rule text NOT NULL, workload text NOT NULL,
  person text NOT NULL DEFAULT '',               -- e-mail address; empty: everybody in the workload
  until timestamptz NOT NULL, reason text NOT NULL, asked_by text NOT NULL, asked_at timestamptz NOT NULL DEFAULT now(),
  state text NOT NULL DEFAULT 'asked' CHECK (state IN ('asked', 'approved', 'refused', 'ended')),
  decided_by text, decided_at timestamptz, decided_reason text, ended_by text, ended_at timestamptz);
CREATE INDEX policy_exception_open ON policy_exception (state, until);

-- Answers that wait for a person before they are sent, and tool calls that wait for an approval. Texts are sealed under the
-- key of whom they are about, and gone once it was decided.
CREATE TABLE held_call (
  id uuid PRIMARY KEY, kind text NOT NULL CHECK (kind IN ('answer', 'tool')), workload text NOT NULL, key_id uuid NOT NULL,
  person_id uuid, gateway uuid NOT NULL, subject text NOT NULL DEFAULT '',   -- deployment, or server/tool
  asked text, said text, digest text NOT NULL DEFAULT '',
  at timestamptz NOT NULL DEFAULT now(), due_at timestamptz NOT NULL, reviewers text[] NOT NULL DEFAULT '{}',
  release_after boolean NOT NULL DEFAULT false,
  state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'released', 'refused', 'lapsed', 'used', 'gone')),
  opened_at timestamptz, opened_by text, decided_by text, decided_at timestamptz, reason text, minutes numeric(10, 2));
CREATE INDEX held_call_waiting ON held_call (due_at) WHERE state = 'waiting';
CREATE INDEX held_call_at ON held_call (at);
CREATE INDEX held_call_again ON held_call (key_id, digest) WHERE kind = 'tool';
CREATE TABLE guard_count (
  day date NOT NULL, workload text NOT NULL, place text NOT NULL, name text NOT NULL, done text NOT NULL, shadow boolean NOT NULL,
  calls bigint NOT NULL DEFAULT 0, finds bigint NOT NULL DEFAULT 0, last_call uuid, last_at timestamptz,
  PRIMARY KEY (day, workload, place, name, done, shadow));

GRANT SELECT ON policy_exception TO %(db)s_gateway;
GRANT SELECT, INSERT, UPDATE ON held_call, guard_count TO %(db)s_gateway;
GRANT SELECT, INSERT, UPDATE, DELETE ON policy_exception, held_call, guard_count TO %(db)s_control;
