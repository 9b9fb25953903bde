-- Economics: experiments and replays that compare models, answers given by similarity, and requests that several
-- workloads make alike. Costs of calls are sums of the ledger (008).

-- What is tried on calls (shadow, A/B). What runs is live policy: gateways read it with its number, and stop within a
-- second. None of these tables holds a question or an answer.
CREATE TABLE experiment (
  id uuid PRIMARY KEY,
  name text NOT NULL,
  workload text NOT NULL,
  type text NOT NULL CHECK (type IN ('shadow', 'ab')),
  candidate text NOT NULL,
  judge text NOT NULL DEFAULT '',
  share int NOT NULL CHECK (share BETWEEN 1 AND 10000),
  split text NOT NULL CHECK (split IN ('person', 'conversation')),
  tolerance double precision NOT NULL,
  guard_tolerance double precision NOT NULL,
  level double precision NOT NULL DEFAULT 0.95,
  budget_usd numeric(30,12) NOT NULL CHECK (budget_usd > 0),
  until timestamptz NOT NULL,
  reason text NOT NULL DEFAULT '',
  slow_ms double precision,  -- fixed when it begins: what counts as slow, and dear_usd as expensive
  dear_usd numeric(30,12),
  blueprint int,  -- that declares it; null: somebody started it
  digest text NOT NULL DEFAULT '',  -- of what is declared, so that a changed declaration is another experiment
  asked_by text NOT NULL,
  asked_at timestamptz NOT NULL DEFAULT now(),
  decided_by text,
  decided_at timestamptz,
  decided_reason text,
  began_at timestamptz,
  state text NOT NULL CHECK (state IN ('asked', 'refused', 'running', 'ended')),
  outcome text NOT NULL DEFAULT '',  -- better kept worse guard budget expired stopped withdrawn
  outcome_reason text NOT NULL DEFAULT '',
  ended_by text,
  ended_at timestamptz,
  figures jsonb NOT NULL DEFAULT '{}'
);
CREATE UNIQUE INDEX experiment_running ON experiment (workload) WHERE state = 'running';
CREATE UNIQUE INDEX experiment_declared ON experiment (workload, digest) WHERE digest <> '';

-- What it showed each time it was looked at.
CREATE TABLE experiment_look (
  experiment uuid NOT NULL REFERENCES experiment,
  at timestamptz NOT NULL DEFAULT now(),
  value double precision NOT NULL,
  low double precision NOT NULL,
  high double precision NOT NULL,
  count bigint NOT NULL,
  PRIMARY KEY (experiment, at)
);

-- One answer compared with the one that was shown: `score` 1 as good, 0 worse, null not compared. `said` is what a
-- judge said: its two verdicts where there is a score, otherwise the beginning of its answer, without words of the
-- call; null: it was not asked, or did not answer.
CREATE TABLE experiment_pair (
  experiment uuid NOT NULL,
  call_id uuid NOT NULL,
  beside_call uuid NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  segment text NOT NULL DEFAULT '',
  basis text NOT NULL CHECK (basis IN ('likeness', 'judge', 'none')),
  score real,
  contradicted boolean NOT NULL DEFAULT false,
  shown_ms double precision,
  beside_ms double precision,
  shown_usd numeric(30,12) NOT NULL DEFAULT 0,
  beside_usd numeric(30,12) NOT NULL DEFAULT 0,
  shown_tokens bigint NOT NULL DEFAULT 0,
  beside_tokens bigint NOT NULL DEFAULT 0,
  answered boolean NOT NULL,
  reviewed boolean,
  reviewed_by text,
  said text,
  PRIMARY KEY (experiment, call_id)
);

-- A replay of kept calls with another model. `keys` are those with which it was made, whose charges are its cost;
-- `problem` is {code, hint} of a run that failed, beside the sentence in `outcome`.
CREATE TABLE replay_run (
  id uuid PRIMARY KEY,
  workload text NOT NULL,
  current text NOT NULL,
  candidate text NOT NULL,
  judge text NOT NULL,
  budget_usd numeric(30,12) NOT NULL CHECK (budget_usd > 0),
  calls int NOT NULL,
  night date,
  asked_by text NOT NULL,
  asked_at timestamptz NOT NULL DEFAULT now(),
  state text NOT NULL CHECK (state IN ('waiting', 'running', 'done', 'failed')),
  runner uuid,
  beat timestamptz,
  began_at timestamptz,
  ended_at timestamptz,
  sampled boolean NOT NULL DEFAULT false,
  outcome text NOT NULL DEFAULT '',
  proposal jsonb,
  keys uuid[] NOT NULL DEFAULT '{}',
  problem jsonb
);
CREATE UNIQUE INDEX replay_night ON replay_run (workload, candidate, night) WHERE night IS NOT NULL;
CREATE INDEX replay_open ON replay_run (asked_at) WHERE state IN ('waiting', 'running');

CREATE TABLE replay_call (
  run uuid NOT NULL REFERENCES replay_run,
  call_id uuid NOT NULL,
  segment text NOT NULL,
  state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'judged', 'skipped')),
  why text NOT NULL DEFAULT '',
  beside_call uuid,
  kept boolean,
  contradicted boolean NOT NULL DEFAULT false,
  cost_usd numeric(30,12),
  candidate_usd numeric(30,12),
  reviewed boolean,
  reviewed_by text,
  said text,
  PRIMARY KEY (run, call_id)
);

-- Answers given by similarity, by day: how often they were looked up, given, checked against a fresh answer, and found
-- wrong.
CREATE TABLE semantic_day (
  day date NOT NULL,
  workload text NOT NULL,
  looked bigint NOT NULL DEFAULT 0,
  given bigint NOT NULL DEFAULT 0,
  checked bigint NOT NULL DEFAULT 0,
  wrong bigint NOT NULL DEFAULT 0,
  spent_us bigint NOT NULL DEFAULT 0,
  saved_usd numeric(30,12) NOT NULL DEFAULT 0,
  PRIMARY KEY (day, workload)
);

-- What these checks found, by region of questions: how often a match was compared and was wrong, and the score that a
-- match must have since. `first`: the signs of the vector of the region's first question, one bit each; `terms`: the
-- settings under which matches were found, so that other settings begin anew.
CREATE TABLE semantic_region (
  workload text NOT NULL,
  terms text NOT NULL,
  first bytea NOT NULL CHECK (octet_length(first) <= 512),
  checked bigint NOT NULL CHECK (checked >= 0),
  wrong bigint NOT NULL CHECK (wrong BETWEEN 0 AND checked),
  raised double precision NOT NULL DEFAULT '-Infinity',
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (workload, terms, first)
);

-- Requests that several workloads made alike, found without keeping any: of one request in eight a keyed digest is kept
-- for the day. When the day is over, what was alike is counted, and digests and key are deleted: then nobody can test
-- guesses against anything. Both tables are unlogged, so neither is in a backup or in the write-ahead log, and a crash
-- empties them. Nobody but the owner of the tables reads a digest, and the control process reads no key.
CREATE UNLOGGED TABLE asked_key (day date PRIMARY KEY, key bytea NOT NULL);

CREATE UNLOGGED TABLE asked (
  id uuid PRIMARY KEY,
  day date NOT NULL,
  digest bytea NOT NULL,
  workload text NOT NULL,
  cost_usd numeric(30,12) NOT NULL
);
CREATE INDEX asked_of_day ON asked (day);

-- By the workloads that asked alike: how many requests, how many calls these were, what all but one of each cost, and
-- how many calls were of the workload that made fewest of each.
CREATE TABLE asked_day (
  day date NOT NULL,
  workloads text[] NOT NULL,
  requests bigint NOT NULL,
  calls bigint NOT NULL,
  repeated_usd numeric(30,12) NOT NULL,
  fewest bigint NOT NULL,
  PRIMARY KEY (day, workloads)
);

-- The key of a day, made at its first use; NULL for a day that is over and counted, or is yet to come.
CREATE FUNCTION key_of_asked(of_day date) RETURNS bytea LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE today date := (now() AT TIME ZONE 'UTC')::date; found bytea;
BEGIN
  IF of_day BETWEEN today AND today + 1 THEN
    INSERT INTO asked_key VALUES (of_day, sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())))
      ON CONFLICT DO NOTHING;
  END IF;
  SELECT key INTO found FROM asked_key WHERE day = of_day;
  RETURN found;
END $$;

CREATE FUNCTION alike(first_day date, last_day date)
RETURNS TABLE (day date, workloads text[], requests bigint, calls bigint, repeated_usd numeric, fewest bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
  WITH each AS (
    SELECT a.day, a.digest, a.workload, count(*) AS n, sum(a.cost_usd) AS cost FROM asked a
    WHERE a.day BETWEEN first_day AND last_day GROUP BY 1, 2, 3),
  same AS (
    SELECT e.day, e.digest, array_agg(e.workload ORDER BY e.workload) AS workloads, sum(e.n)::bigint AS n,
      sum(e.cost) AS cost, min(e.n) AS least
    FROM each e GROUP BY 1, 2 HAVING count(*) > 1)
  SELECT s.day, s.workloads, count(*), sum(s.n)::bigint, sum(s.cost * (s.n - 1) / s.n), sum(s.least)::bigint
  FROM same s GROUP BY 1, 2
$$;

-- Count the days that are over (with ten minutes of grace for what is on its way), and delete what was asked on them.
CREATE FUNCTION fold_asked(at timestamptz) RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE last date := ((at - interval '10 minutes') AT TIME ZONE 'UTC')::date - 1; n int;
BEGIN
  IF NOT pg_try_advisory_xact_lock(80, 241) THEN RETURN 0; END IF;
  DELETE FROM asked_key WHERE day <= last;
  INSERT INTO asked_day AS d SELECT * FROM alike('-infinity', last)
    ON CONFLICT (day, workloads) DO UPDATE SET requests = d.requests + EXCLUDED.requests, calls = d.calls + EXCLUDED.calls,
      repeated_usd = d.repeated_usd + EXCLUDED.repeated_usd, fewest = d.fewest + EXCLUDED.fewest;
  DELETE FROM asked WHERE day <= last;
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN n;
END $$;

-- Rights
GRANT SELECT, INSERT, UPDATE ON experiment, experiment_look, experiment_pair, replay_run, replay_call TO %(db)s_control;
GRANT SELECT ON semantic_day, semantic_region, asked_day TO %(db)s_control;
GRANT SELECT, INSERT, UPDATE ON semantic_day, semantic_region TO %(db)s_gateway;
GRANT SELECT ON experiment TO %(db)s_gateway;
GRANT INSERT ON experiment_pair, asked TO %(db)s_gateway;
REVOKE ALL ON FUNCTION key_of_asked, alike, fold_asked FROM PUBLIC;
GRANT EXECUTE ON FUNCTION key_of_asked TO %(db)s_gateway;
GRANT EXECUTE ON FUNCTION alike, fold_asked TO %(db)s_control;
