-- Contents of calls, where the workload keeps them: prompts and answers, stored responses and completions, responses in
-- the background, cached answers. All are sealed under the key of the person they are about and deleted after the
-- workload's time. What is kept of documents is in 014.

CREATE TABLE content (
  call_id uuid PRIMARY KEY,
  at timestamptz NOT NULL,
  workload text NOT NULL,
  kind text NOT NULL CHECK (kind IN ('redacted', 'full')),
  expires_at timestamptz NOT NULL,
  sealed text NOT NULL,
  found jsonb NOT NULL DEFAULT '{}',
  cut boolean NOT NULL DEFAULT false
);
CREATE INDEX content_expires ON content (expires_at);

-- A look for expired rows, twice a minute, reads the oldest row of each workload and kind; without this it read
-- everything that is kept, sealed texts included. The same for the tables below.
CREATE INDEX content_workload ON content (workload, kind, at);

-- Whose a sealed text is (sealed:SUBJECT:...).
CREATE FUNCTION sealed_for(sealed text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT split_part(sealed, ':', 2) $$;
CREATE INDEX content_subject ON content (sealed_for(sealed));

-- How much content is kept, by workload, kept as it changes (as in 008): what keeping it costs is asked without reading
-- it.
CREATE TABLE content_delta (workload text NOT NULL, calls bigint NOT NULL, bytes bigint NOT NULL);
CREATE TABLE content_sum (LIKE content_delta, PRIMARY KEY (workload));

CREATE FUNCTION roll_content_added() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  INSERT INTO content_delta SELECT workload, count(*), sum(octet_length(sealed)) FROM added GROUP BY 1;
  RETURN NULL;
END $$;
CREATE TRIGGER content_added AFTER INSERT ON content REFERENCING NEW TABLE AS added FOR EACH STATEMENT
  EXECUTE FUNCTION roll_content_added();

CREATE FUNCTION roll_content_gone() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  INSERT INTO content_delta SELECT workload, -count(*), -sum(octet_length(sealed)) FROM gone GROUP BY 1;
  RETURN NULL;
END $$;
CREATE TRIGGER content_gone AFTER DELETE ON content REFERENCING OLD TABLE AS gone FOR EACH STATEMENT
  EXECUTE FUNCTION roll_content_gone();

CREATE FUNCTION fold_content() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE n bigint;
BEGIN
  IF NOT pg_try_advisory_xact_lock(80, 4) THEN RETURN 0; END IF;
  WITH gone AS (DELETE FROM content_delta RETURNING *),
  sums AS (
    INSERT INTO content_sum AS t SELECT workload, sum(calls), sum(bytes) FROM gone GROUP BY 1
    ON CONFLICT (workload) DO UPDATE SET calls = t.calls + EXCLUDED.calls, bytes = t.bytes + EXCLUDED.bytes RETURNING 1)
  SELECT count(*) INTO n FROM gone;
  RETURN n;
END $$;

-- What was kept, sampled once a day: storage is priced over the days on which it was there. A day is written once and
-- never changed; a workload without a row on a sampled day kept nothing.
CREATE TABLE kept_day (day date PRIMARY KEY, sampled_at timestamptz NOT NULL);

CREATE TABLE kept_bytes (
  day date NOT NULL REFERENCES kept_day,
  kind text NOT NULL CHECK (kind IN ('documents', 'content')),
  workload text NOT NULL,  -- '': documents that no workload is given
  source text NOT NULL DEFAULT '',
  bytes bigint NOT NULL CHECK (bytes >= 0),
  PRIMARY KEY (day, kind, workload, source)
);

-- Responses that callers asked to be stored, found again by the key that made them.
CREATE TABLE stored_response (
  id text PRIMARY KEY,
  workload text NOT NULL,
  owner uuid NOT NULL,
  deployment text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  sealed text NOT NULL
);
CREATE INDEX stored_response_expires ON stored_response (expires_at);
CREATE INDEX stored_response_workload ON stored_response (workload, at);

-- Chat completions that callers asked to be stored. Upstreams give the ids, so an id is unique for its owner only.
CREATE TABLE stored_completion (
  call_id uuid PRIMARY KEY,
  id text NOT NULL,
  workload text NOT NULL,
  owner uuid NOT NULL,
  deployment text NOT NULL,
  model text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  sealed text NOT NULL,
  UNIQUE (owner, id)
);
CREATE INDEX stored_completion_expires ON stored_completion (expires_at);
CREATE INDEX stored_completion_listed ON stored_completion (owner, call_id);
CREATE INDEX stored_completion_workload ON stored_completion (workload, at);

-- Responses that callers asked for in the background: the request, how far it is, and its events. The result is a
-- stored response, or stands in `failed`. `waits` is why it could not be made yet (a refusal that passes: code,
-- message, hint), `due` when it is tried again.
CREATE TABLE background_response (
  id text PRIMARY KEY,
  call_id uuid UNIQUE,
  workload text NOT NULL,
  owner uuid NOT NULL,
  key_id uuid NOT NULL,
  person text NOT NULL,
  said jsonb NOT NULL DEFAULT '{}',
  at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  sealed text NOT NULL,
  failed text,
  ended integer,
  status text NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'in_progress', 'completed', 'incomplete',
    'failed', 'cancelled')),
  epoch uuid,
  due timestamptz,
  waits jsonb
);
CREATE INDEX background_response_expires ON background_response (expires_at);
CREATE INDEX background_response_workload ON background_response (workload, at);
CREATE INDEX background_response_open ON background_response (status, (coalesce(due, at)))
  WHERE status IN ('queued', 'in_progress');

CREATE TABLE background_event (
  place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id text NOT NULL REFERENCES background_response (id) ON DELETE CASCADE,
  number integer NOT NULL,
  upto integer NOT NULL,
  sealed text NOT NULL,
  UNIQUE (id, number)
);

-- How often the cached answers of a workload were cleared: part of every answer's key, so none from before is found.
CREATE TABLE answer_clear (
  workload text PRIMARY KEY,
  number int NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  by text NOT NULL
);

-- Cached answers of workloads that keep content in full, for other workers and for after a restart. Unlogged: they need
-- no write-ahead log, which shares its disk with the journals, and are in no backup, which would bring back what was
-- cleared or stopped since.
CREATE UNLOGGED TABLE answer (
  call_id uuid PRIMARY KEY,
  number bigint GENERATED ALWAYS AS IDENTITY,
  workload text NOT NULL,
  cleared int NOT NULL,
  made_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  size int NOT NULL,
  subjects text[] NOT NULL,
  sealed text NOT NULL
);
CREATE INDEX answer_number ON answer (number);
CREATE INDEX answer_expires ON answer (expires_at);

-- Rights. Whoever runs the company may cancel a response in the background.
GRANT SELECT, INSERT, UPDATE, DELETE ON content_delta, content_sum TO %(db)s_control;
GRANT SELECT, INSERT, UPDATE ON answer_clear TO %(db)s_control;
GRANT SELECT, DELETE ON content, stored_response, stored_completion, background_response, background_event,
  answer TO %(db)s_control;
GRANT SELECT, INSERT ON kept_day, kept_bytes TO %(db)s_control;
GRANT SELECT, INSERT, DELETE ON stored_response, stored_completion, background_response,
  background_event TO %(db)s_gateway;
GRANT SELECT ON answer_clear TO %(db)s_gateway, %(db)s_shipper;
GRANT SELECT, INSERT, DELETE ON answer TO %(db)s_shipper;
GRANT INSERT ON content TO %(db)s_shipper;
GRANT SELECT (call_id) ON content TO %(db)s_shipper;
GRANT UPDATE (sealed) ON stored_completion TO %(db)s_gateway;
GRANT UPDATE (call_id, failed, ended, status, epoch, due, waits) ON background_response TO %(db)s_gateway;
GRANT UPDATE (status) ON background_response TO %(db)s_control;
GRANT SELECT ON SEQUENCE background_event_place_seq, answer_number_seq TO %(db)s_control;
REVOKE ALL ON FUNCTION roll_content_added, roll_content_gone FROM PUBLIC;
