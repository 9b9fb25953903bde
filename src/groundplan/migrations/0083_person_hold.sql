-- A legal hold on what is kept of a person's own calls: while it stands, none of it is erased, by request or by its time.
CREATE TABLE person_hold (
  id uuid PRIMARY KEY, person_id uuid NOT NULL REFERENCES person, reason text NOT NULL, by text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(), ended_at timestamptz, ended_by text);
CREATE UNIQUE INDEX person_hold_open ON person_hold (person_id) WHERE ended_at IS NULL;
GRANT SELECT, INSERT, UPDATE ON person_hold TO %(db)s_control;
-- files that somebody uploaded for batches go with what else is kept of them
GRANT UPDATE (deleted_at) ON api_file TO %(db)s_control;
-- whose a sealed text is: sealed:SUBJECT:...
CREATE FUNCTION sealed_for(sealed text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT split_part(sealed, ':', 2) $$;
CREATE INDEX content_subject ON content (sealed_for(sealed));

-- A request to erase somebody waits for a person who may decide it; what names them goes when it was decided, the receipt
-- stays.
CREATE TABLE erasure_request (
  id uuid PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), by text NOT NULL, asked jsonb,
  state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'done', 'refused')), decided_at timestamptz,
  decided_by text, receipt text, CHECK ((state = 'waiting') = (asked IS NOT NULL)));
GRANT SELECT, INSERT, UPDATE ON erasure_request TO %(db)s_control;
