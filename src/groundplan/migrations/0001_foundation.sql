-- The first schema. Roles (without login here; the supervisor gives them log-ins): %(db)s_control, %(db)s_gateway, %(db)s_shipper,
-- %(db)s_search. None owns a table, is superuser or bypasses row-level security. Money is numeric(30,12) USD; times are timestamptz.
CREATE EXTENSION IF NOT EXISTS vector;

-- identity ------------------------------------------------------------------------------------------------------------------
CREATE TABLE person (
  id uuid PRIMARY KEY, email text NOT NULL UNIQUE CHECK (email = lower(email)), name text NOT NULL,
  active boolean NOT NULL DEFAULT true, left_at timestamptz, created_at timestamptz NOT NULL DEFAULT now());
-- `everyone` is a group like any other that every active person is in by rule, not by row.
CREATE TABLE people_group (
  id uuid PRIMARY KEY, name text NOT NULL UNIQUE, type text NOT NULL CHECK (type IN ('group', 'team')));
CREATE TABLE membership (
  id uuid PRIMARY KEY, group_id uuid NOT NULL REFERENCES people_group,
  person_id uuid REFERENCES person, member_group_id uuid REFERENCES people_group,
  CHECK ((person_id IS NULL) <> (member_group_id IS NULL)),
  UNIQUE NULLS NOT DISTINCT (group_id, person_id, member_group_id));
-- who holds which duty, for the company (subject 'company') or a subject such as 'workload/staff-assistant'
CREATE TABLE duty (
  subject text NOT NULL, duty text NOT NULL, person_id uuid NOT NULL REFERENCES person, PRIMARY KEY (subject, duty, person_id));
CREATE TABLE login_link (
  hash bytea PRIMARY KEY, person_id uuid REFERENCES person, created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL, used_at timestamptz);               -- person_id NULL: the local operator
CREATE TABLE console_session (
  hash bytea PRIMARY KEY, person_id uuid REFERENCES person, acting_as uuid REFERENCES person, csrf text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(), expires_at timestamptz NOT NULL, ended_at timestamptz);

-- live policy ---------------------------------------------------------------------------------------------------------------
-- Every change of live policy takes the row lock on policy_epoch, adds 1 and writes policy_change, in its own transaction;
-- NOTIFY groundplan_policy carries the number. So numbers are seen in order.
CREATE TABLE policy_epoch (one boolean PRIMARY KEY DEFAULT true CHECK (one), number bigint NOT NULL);
INSERT INTO policy_epoch (number) VALUES (0);
CREATE TABLE policy_change (
  number bigint PRIMARY KEY, kind text NOT NULL, subject text NOT NULL, stops boolean NOT NULL DEFAULT false,
  at timestamptz NOT NULL DEFAULT now());
CREATE FUNCTION next_policy_number(kind text, subject text, stops boolean) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE n bigint;
BEGIN
  UPDATE policy_epoch SET number = number + 1 RETURNING number INTO n;
  INSERT INTO policy_change (number, kind, subject, stops) VALUES (n, kind, subject, stops);
  PERFORM pg_notify('groundplan_policy', n::text);
  RETURN n;
END $$;
CREATE TABLE api_key (
  id uuid PRIMARY KEY, hash bytea NOT NULL UNIQUE, prefix text NOT NULL, workload text NOT NULL,
  person_id uuid REFERENCES person, acts_for_others boolean NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL DEFAULT now(), created_by text NOT NULL, expires_at timestamptz, revoked_at timestamptz);
CREATE TABLE kill_switch (
  id uuid PRIMARY KEY, scope text NOT NULL, reason text NOT NULL, by text NOT NULL, at timestamptz NOT NULL DEFAULT now(),
  lifted_at timestamptz, lifted_by text);      -- scope: company | workload/N | deployment/N | source/N | key/ID | site/N
CREATE TABLE gateway (
  epoch uuid PRIMARY KEY, host text NOT NULL, home text NOT NULL, pid int NOT NULL, started_at timestamptz NOT NULL DEFAULT now(),
  heartbeat_at timestamptz NOT NULL DEFAULT now(), policy_ack bigint NOT NULL DEFAULT 0, blueprint int NOT NULL DEFAULT 0,
  ready boolean NOT NULL DEFAULT false, state text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'stopped', 'fenced')));

-- blueprints and changes ----------------------------------------------------------------------------------------------------
CREATE TABLE blueprint (
  number int PRIMARY KEY, body bytea NOT NULL, digest text NOT NULL, signature text NOT NULL, key_id text NOT NULL,
  sources jsonb NOT NULL, created_at timestamptz NOT NULL DEFAULT now(), created_by text NOT NULL, reason text NOT NULL,
  rollback_of int REFERENCES blueprint, genesis boolean NOT NULL DEFAULT false);
CREATE TABLE change (
  id uuid PRIMARY KEY, digest text NOT NULL, type text NOT NULL, base int NOT NULL, sources jsonb NOT NULL, summary jsonb NOT NULL,
  needs jsonb NOT NULL, requested_by text NOT NULL, requested_at timestamptz NOT NULL DEFAULT now(),
  state text NOT NULL CHECK (state IN ('pending', 'applied', 'refused', 'withdrawn', 'superseded')), decided_at timestamptz,
  blueprint int REFERENCES blueprint);
CREATE TABLE approval (
  id uuid PRIMARY KEY, change_id uuid NOT NULL REFERENCES change, digest text NOT NULL, duty text NOT NULL, subject text NOT NULL,
  person_id uuid NOT NULL REFERENCES person, decision text NOT NULL CHECK (decision IN ('approved', 'refused')), comment text NOT NULL,
  unseparated boolean NOT NULL, demo boolean NOT NULL DEFAULT false, at timestamptz NOT NULL DEFAULT now(), withdrawn_at timestamptz,
  UNIQUE (change_id, subject, duty, person_id));

-- budgets: granted = live slices + what was spent from them; never above limit ------------------------------------------------
CREATE TABLE budget_period (
  budget text NOT NULL, period text NOT NULL, limit_usd numeric(30,12) NOT NULL CHECK (limit_usd >= 0),
  granted_usd numeric(30,12) NOT NULL DEFAULT 0 CHECK (granted_usd >= 0), wanted_at timestamptz, PRIMARY KEY (budget, period));
CREATE TABLE budget_slice (
  epoch uuid NOT NULL REFERENCES gateway, budget text NOT NULL, period text NOT NULL,
  granted_usd numeric(30,12) NOT NULL DEFAULT 0, released_usd numeric(30,12) NOT NULL DEFAULT 0, CHECK (released_usd <= granted_usd),
  closed boolean NOT NULL DEFAULT false, PRIMARY KEY (epoch, budget, period),
  FOREIGN KEY (budget, period) REFERENCES budget_period);
CREATE TABLE budget_movement (               -- each grant and release once, by the id its holder gave it
  id uuid PRIMARY KEY, epoch uuid NOT NULL, budget text NOT NULL, period text NOT NULL, amount_usd numeric(30,12) NOT NULL,
  type text NOT NULL CHECK (type IN ('grant', 'release', 'recovered')), at timestamptz NOT NULL DEFAULT now());

-- ledger --------------------------------------------------------------------------------------------------------------------
CREATE TABLE call (
  id uuid PRIMARY KEY, at timestamptz NOT NULL, workload text NOT NULL, person_id uuid, key_id uuid, team text,
  endpoint text NOT NULL, status text NOT NULL, http_status int NOT NULL, error_code text,  -- status: ok refused failed cancelled crashed
  model text, deployment text, site text, cost_usd numeric(30,12) NOT NULL, reserved_usd numeric(30,12) NOT NULL,
  prompt_tokens bigint NOT NULL DEFAULT 0, completion_tokens bigint NOT NULL DEFAULT 0, cache text NOT NULL DEFAULT 'none',
  blueprint int NOT NULL, epoch uuid NOT NULL, demo boolean NOT NULL DEFAULT false, duration_ms double precision,
  first_byte_ms double precision, detail jsonb NOT NULL);
CREATE INDEX call_at ON call (at DESC);
CREATE INDEX call_workload_at ON call (workload, at DESC);
CREATE TABLE attempt (
  call_id uuid NOT NULL, number int NOT NULL, at timestamptz NOT NULL, deployment text NOT NULL, site text NOT NULL, model text NOT NULL,
  state text NOT NULL CHECK (state IN ('open', 'settled', 'crashed')), outcome text NOT NULL, http_status int,
  reserved_usd numeric(30,12) NOT NULL, cost_usd numeric(30,12) NOT NULL, usage jsonb NOT NULL, estimated boolean NOT NULL DEFAULT false,
  flags text[] NOT NULL DEFAULT '{}', duration_ms double precision, epoch uuid NOT NULL, PRIMARY KEY (call_id, number));
CREATE INDEX attempt_epoch ON attempt (epoch);   -- what a dead worker spent
CREATE TABLE charge (                          -- which budgets an attempt was charged to
  call_id uuid NOT NULL, attempt int NOT NULL, budget text NOT NULL, period text NOT NULL, cost_usd numeric(30,12) NOT NULL,
  PRIMARY KEY (call_id, attempt, budget, period));
CREATE TABLE outcome (
  id uuid PRIMARY KEY, call_id uuid NOT NULL, at timestamptz NOT NULL DEFAULT now(), accepted boolean, value_usd numeric(30,12),
  label text, by text NOT NULL);
CREATE TABLE finding (
  id uuid PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), kind text NOT NULL, severity text NOT NULL, subject text NOT NULL,
  message text NOT NULL, hint text NOT NULL, owner text, closed_at timestamptz);
CREATE TABLE shipped (                         -- how far each journal has been taken over
  epoch uuid PRIMARY KEY, segment int NOT NULL, position bigint NOT NULL, done boolean NOT NULL DEFAULT false,
  gaps int NOT NULL DEFAULT 0);

-- audit: written in the same transaction as what it tells; the sequencer gives leaf_index -------------------------------------
CREATE TABLE audit_entry (
  id uuid PRIMARY KEY, at timestamptz NOT NULL, action text NOT NULL, actor text NOT NULL, subject text NOT NULL,
  body bytea NOT NULL, leaf_index bigint UNIQUE, queued bigint GENERATED ALWAYS AS IDENTITY);
CREATE INDEX audit_unsequenced ON audit_entry (queued) WHERE leaf_index IS NULL;
CREATE INDEX audit_subject ON audit_entry (subject);
CREATE TABLE subject_key (                     -- wrapped per-person keys: destroying a row erases that person's fields in the log
  subject text PRIMARY KEY, wrapped bytea NOT NULL, created_at timestamptz NOT NULL DEFAULT now());

-- knowledge -----------------------------------------------------------------------------------------------------------------
CREATE TABLE source (
  name text PRIMARY KEY, sensitivity text NOT NULL, owner text NOT NULL, path text NOT NULL, indexed_at timestamptz, documents int NOT NULL DEFAULT 0);
CREATE TABLE document (
  id uuid PRIMARY KEY, source text NOT NULL REFERENCES source ON DELETE CASCADE, path text NOT NULL, title text NOT NULL,
  digest text NOT NULL, version int NOT NULL DEFAULT 1, modified_at timestamptz, review_by date, superseded_by uuid,
  deleted_at timestamptz,
  UNIQUE (source, path));
CREATE TABLE document_reader (                 -- readers by group name ('everyone', a group, a team) or person id; deny wins
  document_id uuid NOT NULL REFERENCES document ON DELETE CASCADE, reader text NOT NULL, deny boolean NOT NULL DEFAULT false,
  PRIMARY KEY (document_id, reader, deny));
CREATE TABLE chunk (
  id uuid PRIMARY KEY, document_id uuid NOT NULL REFERENCES document ON DELETE CASCADE, number int NOT NULL, text text NOT NULL,
  start_char int NOT NULL, end_char int NOT NULL, start_line int NOT NULL, end_line int NOT NULL, embedding halfvec(384),
  changed bigint NOT NULL, UNIQUE (document_id, number));
CREATE SEQUENCE chunk_change;
CREATE INDEX chunk_changed ON chunk (changed);

-- who a person is, transitively: groups by membership rows, plus 'everyone'
CREATE FUNCTION reader_names(who uuid) RETURNS SETOF text LANGUAGE sql STABLE AS $$
  WITH RECURSIVE mine(id) AS (
    SELECT group_id FROM membership WHERE person_id = who
    UNION SELECT m.group_id FROM membership m JOIN mine ON m.member_group_id = mine.id)
  SELECT g.name FROM mine JOIN people_group g USING (id)
  UNION SELECT 'everyone' WHERE EXISTS (SELECT 1 FROM person WHERE id = who AND active)
  UNION SELECT email FROM person WHERE id = who AND active
$$;
-- the search role sees a document only if the person in groundplan.person may read it
ALTER TABLE document ENABLE ROW LEVEL SECURITY;
ALTER TABLE document FORCE ROW LEVEL SECURITY;
ALTER TABLE chunk ENABLE ROW LEVEL SECURITY;
ALTER TABLE chunk FORCE ROW LEVEL SECURITY;
CREATE POLICY document_control ON document TO %(db)s_control USING (true) WITH CHECK (true);
CREATE POLICY chunk_control ON chunk TO %(db)s_control USING (true) WITH CHECK (true);
CREATE POLICY document_reader ON document FOR SELECT TO %(db)s_search USING (
  deleted_at IS NULL AND EXISTS (
    SELECT 1 FROM person p WHERE p.id = nullif(current_setting('groundplan.person', true), '')::uuid AND p.active)
  AND EXISTS (SELECT 1 FROM document_reader r WHERE r.document_id = document.id AND NOT r.deny
    AND r.reader IN (SELECT reader_names(nullif(current_setting('groundplan.person', true), '')::uuid)))
  AND NOT EXISTS (SELECT 1 FROM document_reader r WHERE r.document_id = document.id AND r.deny
    AND r.reader IN (SELECT reader_names(nullif(current_setting('groundplan.person', true), '')::uuid))));
CREATE POLICY chunk_reader ON chunk FOR SELECT TO %(db)s_search USING (
  EXISTS (SELECT 1 FROM document d WHERE d.id = chunk.document_id));

-- rights --------------------------------------------------------------------------------------------------------------------
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO %(db)s_control;
REVOKE UPDATE, DELETE ON audit_entry, policy_change, blueprint, budget_movement, call, attempt, charge FROM %(db)s_control;
GRANT UPDATE (leaf_index) ON audit_entry TO %(db)s_control;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO %(db)s_control;
GRANT SELECT ON policy_epoch, policy_change, api_key, kill_switch, person, people_group, membership, blueprint, budget_period, budget_slice TO %(db)s_gateway;
GRANT SELECT, INSERT, UPDATE ON gateway, budget_period, budget_slice TO %(db)s_gateway;
GRANT SELECT, INSERT ON budget_movement, outcome TO %(db)s_gateway;
GRANT SELECT (workload, at, person_id, epoch, status) ON call TO %(db)s_gateway;
GRANT SELECT, INSERT, UPDATE ON call, attempt, charge, shipped, gateway, budget_period, budget_slice TO %(db)s_shipper;
GRANT SELECT, INSERT ON budget_movement, audit_entry, finding, subject_key TO %(db)s_shipper;
GRANT SELECT ON person, api_key, blueprint TO %(db)s_shipper;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO %(db)s_shipper;
GRANT SELECT ON document, chunk, document_reader, source, person, people_group, membership TO %(db)s_search;
-- the step reached, which Alembic keeps
REVOKE ALL ON alembic_version FROM %(db)s_control;
