-- What is tried on calls (shadow, A/B), what it showed each time it was looked at, and replays of kept calls. What runs is live
-- policy: gateways read it with its number, and stop within a second. None of it has what was asked or answered.
CREATE TABLE experiment (
  id uuid PRIMARY KEY, name text NOT NULL, workload text NOT NULL, type text NOT NULL CHECK (type IN ('shadow', 'ab')),
  candidate text NOT NULL, judge text NOT NULL DEFAULT '', share int NOT NULL CHECK (share BETWEEN 1 AND 10000),
  split text NOT NULL CHECK (split IN ('person', 'conversation')), tolerance double precision NOT NULL,
  guard_tolerance double precision NOT NULL, level double precision NOT NULL DEFAULT 0.95,
  budget_usd numeric(30,12) NOT NULL CHECK (budget_usd > 0), until timestamptz NOT NULL, reason text NOT NULL DEFAULT '',
  slow_ms double precision, dear_usd numeric(30,12),   -- fixed when it begins: what counts as slow, and as dear
  blueprint int,                                       -- that declares it; null: somebody started it
  digest text NOT NULL DEFAULT '',                     -- of what is declared, so that a changed declaration is another one
  asked_by text NOT NULL, asked_at timestamptz NOT NULL DEFAULT now(), decided_by text, decided_at timestamptz,
  decided_reason text, began_at timestamptz,
  state text NOT NULL CHECK (state IN ('asked', 'refused', 'running', 'ended')),
  outcome text NOT NULL DEFAULT '',                    -- better kept worse guard budget expired stopped withdrawn
  outcome_reason text NOT NULL DEFAULT '', ended_by text, ended_at timestamptz, figures jsonb NOT NULL DEFAULT '{}');
CREATE UNIQUE INDEX experiment_running ON experiment (workload) WHERE state = 'running';
CREATE UNIQUE INDEX experiment_declared ON experiment (workload, digest) WHERE digest <> '';
CREATE TABLE experiment_look (
  experiment uuid NOT NULL REFERENCES experiment, at timestamptz NOT NULL DEFAULT now(), value double precision NOT NULL,
  low double precision NOT NULL, high double precision NOT NULL, count bigint NOT NULL, PRIMARY KEY (experiment, at));
-- one answer beside one that was shown: `score` 1 as good, 0 worse, null not compared
CREATE TABLE experiment_pair (
  experiment uuid NOT NULL, call_id uuid NOT NULL, beside_call uuid NOT NULL, at timestamptz NOT NULL DEFAULT now(),
  segment text NOT NULL DEFAULT '', basis text NOT NULL CHECK (basis IN ('likeness', 'judge', 'none')), score real,
  contradicted boolean NOT NULL DEFAULT false, shown_ms double precision, beside_ms double precision,
  shown_usd numeric(30,12) NOT NULL DEFAULT 0, beside_usd numeric(30,12) NOT NULL DEFAULT 0,
  shown_tokens bigint NOT NULL DEFAULT 0, beside_tokens bigint NOT NULL DEFAULT 0, answered boolean NOT NULL,
  reviewed boolean, reviewed_by text, PRIMARY KEY (experiment, call_id));
CREATE INDEX call_experiment ON call ((detail -> 'route' ->> 'experiment')) WHERE detail -> 'route' ? 'experiment';

CREATE TABLE replay_run (
  id uuid PRIMARY KEY, workload text NOT NULL, current text NOT NULL, candidate text NOT NULL, judge text NOT NULL,
  budget_usd numeric(30,12) NOT NULL CHECK (budget_usd > 0), calls int NOT NULL, night date, asked_by text NOT NULL,
  asked_at timestamptz NOT NULL DEFAULT now(), state text NOT NULL CHECK (state IN ('waiting', 'running', 'done', 'failed')),
  runner uuid, beat timestamptz, began_at timestamptz, ended_at timestamptz, sampled boolean NOT NULL DEFAULT false,
  outcome text NOT NULL DEFAULT '', proposal jsonb);
CREATE UNIQUE INDEX replay_night ON replay_run (workload, candidate, night) WHERE night IS NOT NULL;
CREATE INDEX replay_open ON replay_run (asked_at) WHERE state IN ('waiting', 'running');
CREATE TABLE replay_call (
  run uuid NOT NULL REFERENCES replay_run, call_id uuid NOT NULL, segment text NOT NULL,
  state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'judged', 'skipped')), why text NOT NULL DEFAULT '',
  beside_call uuid, kept boolean, contradicted boolean NOT NULL DEFAULT false, cost_usd numeric(30,12),
  candidate_usd numeric(30,12), reviewed boolean, reviewed_by text, PRIMARY KEY (run, call_id));
-- a key that only the control process holds, for a purpose of its own
ALTER TABLE api_key ADD COLUMN purpose text NOT NULL DEFAULT '';

GRANT SELECT ON experiment TO %(db)s_gateway;
GRANT INSERT ON experiment_pair TO %(db)s_gateway;
-- Calls of workloads that may make only so many a day, of all workers but one; those of experiments are beside.
CREATE FUNCTION calls_made(which text[], since timestamptz, but uuid) RETURNS TABLE (workload text, calls bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public AS $$
  SELECT c.workload, count(*) FROM call c
  WHERE c.workload = ANY(which) AND c.at >= since AND c.epoch <> but AND c.status <> 'refused'
    AND NOT (c.detail ? 'feature' AND starts_with(c.detail ->> 'feature', 'experiment/'))
  GROUP BY c.workload
$$;
REVOKE ALL ON FUNCTION calls_made(text[], timestamptz, uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION calls_made(text[], timestamptz, uuid) TO %(db)s_gateway;
GRANT SELECT, INSERT, UPDATE ON experiment, experiment_look, experiment_pair, replay_run, replay_call TO %(db)s_control;
