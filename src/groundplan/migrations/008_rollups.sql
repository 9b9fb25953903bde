-- Sums of the ledger, kept as facts arrive. Every statement that adds facts also writes what it adds to the sums
-- (`*_delta`), in the same transaction, so the sums are those of the facts whatever is killed when, and however late a
-- fact comes. Deltas are folded into hours, days and months later (010): a sum is the folded rows and the deltas of one
-- snapshot. Facts may leave for archives, sums stay. The functions are in 009.
--
-- The column `hour` of every table is the beginning of its hour, day or month in UTC. Triggers find it by counting from
-- the year 2000 (date_bin), which costs less than date_trunc. '00000000-…' stands for nobody, or no key.

-- Calls.
CREATE TABLE call_delta (
  hour timestamptz NOT NULL,
  workload text NOT NULL,
  team text NOT NULL,
  demo boolean NOT NULL,
  blueprint int NOT NULL,
  model text NOT NULL,
  deployment text NOT NULL,
  site text NOT NULL,
  endpoint text NOT NULL,
  status text NOT NULL,
  cache text NOT NULL,
  feature text NOT NULL,
  calls bigint NOT NULL,
  cost_usd numeric(30,12) NOT NULL,
  saved_usd numeric(30,12) NOT NULL,
  prefix_saved_usd numeric(30,12) NOT NULL,
  prompt_tokens numeric NOT NULL,
  completion_tokens numeric NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

CREATE TABLE call_hour (
  LIKE call_delta,
  PRIMARY KEY (hour, workload, team, demo, blueprint, model, deployment, site, endpoint, status, cache, feature)
);

CREATE TABLE call_day (
  LIKE call_delta,
  PRIMARY KEY (hour, workload, team, demo, blueprint, model, deployment, site, endpoint, status, cache, feature)
);

-- Answers of each feature alone, by hour: which of them come by the clock?
CREATE TABLE feature_hour (
  hour timestamptz NOT NULL,
  workload text NOT NULL,
  feature text NOT NULL,
  deployment text NOT NULL,
  calls bigint NOT NULL,
  cost_usd numeric(30,12) NOT NULL,
  PRIMARY KEY (hour, workload, feature, deployment)
);

-- Attempts and what their costs are made of, by purpose and tier: so the cost of judges and guardrails is shown apart,
-- and counted once.
CREATE TABLE part_delta (
  hour timestamptz NOT NULL,
  workload text NOT NULL,
  demo boolean NOT NULL,
  blueprint int NOT NULL,
  deployment text NOT NULL,
  site text NOT NULL,
  model text NOT NULL,
  outcome text NOT NULL,
  estimated boolean NOT NULL,
  part text NOT NULL,
  count numeric NOT NULL,
  cost_usd numeric(30,12) NOT NULL,
  purpose text NOT NULL DEFAULT '',
  tier text NOT NULL DEFAULT ''
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

CREATE TABLE part_hour (
  LIKE part_delta INCLUDING DEFAULTS,
  PRIMARY KEY (hour, workload, demo, blueprint, deployment, site, model, outcome, estimated, part, purpose, tier)
);

CREATE TABLE part_day (
  LIKE part_delta INCLUDING DEFAULTS,
  PRIMARY KEY (hour, workload, demo, blueprint, deployment, site, model, outcome, estimated, part, purpose, tier)
);

-- Calls by person and key.
CREATE TABLE person_delta (
  hour timestamptz NOT NULL,
  workload text NOT NULL,
  person uuid NOT NULL,
  key uuid NOT NULL,
  demo boolean NOT NULL,
  calls bigint NOT NULL,
  cost_usd numeric(30,12) NOT NULL,
  prompt_tokens numeric NOT NULL,
  completion_tokens numeric NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

CREATE TABLE person_day (LIKE person_delta, PRIMARY KEY (hour, workload, person, key, demo));

-- By month: whole months, such as the current one so far, are asked for most.
CREATE TABLE person_month (
  hour timestamptz NOT NULL,
  workload text NOT NULL,
  person uuid NOT NULL,
  calls bigint NOT NULL,
  cost_usd numeric(30,12) NOT NULL,
  PRIMARY KEY (hour, workload, person)
);

-- Of all workloads and keys.
CREATE TABLE person_whole (
  hour timestamptz NOT NULL,
  person uuid NOT NULL,
  calls bigint NOT NULL,
  cost_usd numeric(30,12) NOT NULL,
  PRIMARY KEY (hour, person)
);
CREATE INDEX person_whole_person ON person_whole (person, hour);

-- The cost of keys by day: tags of keys are summed up over all people, of whom there are many more than keys.
CREATE TABLE key_day (
  hour timestamptz NOT NULL,
  workload text NOT NULL,
  key uuid NOT NULL,
  calls bigint NOT NULL,
  cost_usd numeric(30,12) NOT NULL,
  PRIMARY KEY (hour, workload, key)
);

-- The cost of calls on the documents whose passages they were given, in equal shares; the remainder goes to the first.
-- '': calls without passages.
CREATE TABLE document_delta (
  hour timestamptz NOT NULL,
  workload text NOT NULL,
  document text NOT NULL,
  demo boolean NOT NULL,
  calls bigint NOT NULL,
  cost_usd numeric(30,12) NOT NULL
);

CREATE TABLE document_day (LIKE document_delta, PRIMARY KEY (hour, workload, document, demo));

CREATE TABLE document_month (
  hour timestamptz NOT NULL,
  workload text NOT NULL,
  document text NOT NULL,
  calls bigint NOT NULL,
  cost_usd numeric(30,12) NOT NULL,
  PRIMARY KEY (hour, workload, document)
);

-- Of all workloads.
CREATE TABLE document_whole (
  hour timestamptz NOT NULL,
  document text NOT NULL,
  calls bigint NOT NULL,
  cost_usd numeric(30,12) NOT NULL,
  PRIMARY KEY (hour, document)
);

-- Tokens by where they were made, of each person and on each document (in equal shares): own hardware is priced by the
-- tokens that were made on it, not by what calls of the same people cost elsewhere.
CREATE TABLE person_place_delta (
  hour timestamptz NOT NULL,
  workload text NOT NULL,
  person uuid NOT NULL,
  deployment text NOT NULL,
  site text NOT NULL,
  calls bigint NOT NULL,
  tokens numeric NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

CREATE TABLE person_place_day (LIKE person_place_delta, PRIMARY KEY (hour, deployment, site, workload, person));
CREATE TABLE person_place_month (LIKE person_place_delta, PRIMARY KEY (hour, deployment, site, workload, person));

CREATE TABLE document_place_delta (
  hour timestamptz NOT NULL,
  workload text NOT NULL,
  document text NOT NULL,
  deployment text NOT NULL,
  site text NOT NULL,
  calls bigint NOT NULL,
  tokens numeric NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

CREATE TABLE document_place_day (LIKE document_place_delta, PRIMARY KEY (hour, deployment, site, workload, document));
CREATE TABLE document_place_month (LIKE document_place_delta, PRIMARY KEY (hour, deployment, site, workload, document));

-- How many answered calls took how long: bucket b holds milliseconds from 1.02^b up to 1.02^(b+1). `what`: whole, first
-- (byte), and 'first demo' for demo calls among the latter, so that they can be left out.
CREATE TABLE latency_delta (
  hour timestamptz NOT NULL,
  workload text NOT NULL,
  what text NOT NULL,
  bucket int NOT NULL,
  calls bigint NOT NULL
);

CREATE TABLE latency_day (LIKE latency_delta, PRIMARY KEY (hour, workload, what, bucket));
CREATE TABLE charge_delta (budget text NOT NULL, period text NOT NULL, cost_usd numeric(30,12) NOT NULL);
CREATE TABLE charge_total (LIKE charge_delta, PRIMARY KEY (budget, period));
CREATE INDEX charge_total_period ON charge_total (period);

-- Outcomes by the day of their call. Each field of a call counts once, as outcome_told() says.
CREATE TABLE outcome_delta (
  hour timestamptz NOT NULL,
  workload text NOT NULL,
  demo boolean NOT NULL,
  refused boolean NOT NULL,
  outcomes bigint NOT NULL,
  reported bigint NOT NULL,
  accepted bigint NOT NULL,
  value_usd numeric(30,12) NOT NULL
);

CREATE TABLE outcome_day (LIKE outcome_delta, PRIMARY KEY (hour, workload, demo, refused));

-- Live figures: calls and attempts of the last two hours in steps of ten seconds. Every look at the console asks for
-- them; read from the newest calls and attempts they would cost more the faster these come.
CREATE TABLE call_step_delta (
  step timestamptz NOT NULL,
  workload text NOT NULL,
  deployment text NOT NULL,
  status text NOT NULL,
  calls bigint NOT NULL,
  cost_usd numeric(30,12) NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

CREATE TABLE call_step (LIKE call_step_delta, PRIMARY KEY (step, workload, deployment, status));

-- Settled attempts. last_ok and last_failed are when the newest of them began: which deployment answered last, and
-- which site fails?
CREATE TABLE attempt_step_delta (
  step timestamptz NOT NULL,
  workload text NOT NULL,
  deployment text NOT NULL,
  site text NOT NULL,
  attempts bigint NOT NULL,
  ok bigint NOT NULL,
  failed bigint NOT NULL,
  last_ok timestamptz,
  last_failed timestamptz
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

CREATE TABLE attempt_step (LIKE attempt_step_delta, PRIMARY KEY (step, workload, deployment, site));

-- How many calls each worker made on a day: gateways ask five times a second for what others made of a workload with a
-- daily limit. Only today is ever read.
CREATE TABLE worker_day (
  day date NOT NULL,
  workload text NOT NULL,
  epoch uuid NOT NULL,
  calls bigint NOT NULL,
  PRIMARY KEY (day, workload, epoch)
);

-- What people and documents cost from the beginning of a month up to each of its days: any days of a month are one of
-- these sums less another, in one row each, instead of up to half a month of daily rows. `days` are those on which
-- there was something, ascending; the other arrays are the sums up to each of them.
CREATE TABLE person_running (
  month timestamptz NOT NULL,
  workload text NOT NULL,
  person uuid NOT NULL,
  days smallint[] NOT NULL,
  calls bigint[] NOT NULL,
  cost_usd numeric[] NOT NULL,
  PRIMARY KEY (month, workload, person)
);

CREATE TABLE document_running (
  month timestamptz NOT NULL,
  workload text NOT NULL,
  document text NOT NULL,
  days smallint[] NOT NULL,
  calls bigint[] NOT NULL,
  cost_usd numeric[] NOT NULL,
  PRIMARY KEY (month, workload, document)
);

CREATE TABLE person_place_running (
  month timestamptz NOT NULL,
  workload text NOT NULL,
  person uuid NOT NULL,
  deployment text NOT NULL,
  site text NOT NULL,
  days smallint[] NOT NULL,
  calls bigint[] NOT NULL,
  tokens numeric[] NOT NULL,
  PRIMARY KEY (month, deployment, site, workload, person)
);

CREATE TABLE document_place_running (
  month timestamptz NOT NULL,
  workload text NOT NULL,
  document text NOT NULL,
  deployment text NOT NULL,
  site text NOT NULL,
  days smallint[] NOT NULL,
  calls bigint[] NOT NULL,
  tokens numeric[] NOT NULL,
  PRIMARY KEY (month, deployment, site, workload, document)
);

-- NAME_running holds the days of NAME_day from `since`, the beginning of a month, up to `until`; a day follows when it
-- is over.
CREATE TABLE running_span (
  name text PRIMARY KEY,
  keys text NOT NULL,
  measure text NOT NULL,
  since timestamptz,
  until timestamptz
);
INSERT INTO running_span (name, keys, measure) VALUES
  ('person', 'workload, person', 'cost_usd'), ('document', 'workload, document', 'cost_usd'),
  ('person_place', 'workload, person, deployment, site', 'tokens'),
  ('document_place', 'workload, document, deployment, site', 'tokens');

-- Rights
GRANT SELECT, INSERT, UPDATE, DELETE ON call_delta, call_hour, call_day, feature_hour, part_delta, part_hour, part_day,
  person_delta, person_day, person_month, person_whole, key_day, document_delta, document_day, document_month,
  document_whole, person_place_delta, person_place_day, person_place_month, document_place_delta, document_place_day,
  document_place_month, latency_delta, latency_day, charge_delta, charge_total, outcome_delta, outcome_day,
  call_step_delta, call_step, attempt_step_delta, attempt_step, person_running, document_running, person_place_running,
  document_place_running TO %(db)s_control;
GRANT SELECT, UPDATE ON running_span TO %(db)s_control;
GRANT SELECT ON worker_day TO %(db)s_control;
