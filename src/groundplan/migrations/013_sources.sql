-- Sources of documents, and who reads them: grants, shared links, and sets of readers (`acl`). Documents themselves,
-- and what holds for each, are in 014.

CREATE TABLE source (
  name text PRIMARY KEY,
  sensitivity text NOT NULL,
  owner text NOT NULL,
  path text NOT NULL,
  indexed_at timestamptz,
  documents int NOT NULL DEFAULT 0,
  type text NOT NULL DEFAULT 'folder',
  steward text,
  state text NOT NULL DEFAULT 'approved',
  purposes text[],
  workloads text[],
  residency text[],
  licence text,
  review_days int,
  retain_days int,
  legal_hold boolean NOT NULL DEFAULT false,
  erase_days int NOT NULL DEFAULT 30,
  decided jsonb NOT NULL DEFAULT '{}',
  quality real,
  cursor jsonb,  -- where the connector goes on, in its own words
  progress jsonb,  -- {"done": 120, "of": 400 or null, "at": time} of the run under way, or of the last one
  health text NOT NULL DEFAULT 'unknown',
  health_reason text
);

-- What the served blueprint declares a source to be. A run over the source that began under another declaration writes
-- nothing any more.
CREATE TABLE source_declared (source text PRIMARY KEY, said text NOT NULL);

-- One row for a source and a day: its score, and what it is made of.
CREATE TABLE source_quality (
  source text NOT NULL,
  day date NOT NULL,
  score real NOT NULL,
  documents int NOT NULL,
  parts jsonb NOT NULL,
  PRIMARY KEY (source, day)
);

-- What applications push, until it is a document and for as long as it is one.
CREATE SEQUENCE pushed_change;

CREATE TABLE pushed (
  source text NOT NULL,
  path text NOT NULL,
  data bytea NOT NULL,
  media text NOT NULL DEFAULT '',
  readers text[],
  told jsonb NOT NULL DEFAULT '{}',
  gone boolean NOT NULL DEFAULT false,
  number bigint NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (source, path)
);
-- No samples of contents in the planner's statistics.
ALTER TABLE pushed ALTER data SET STATISTICS 0, ALTER told SET STATISTICS 0;
CREATE INDEX pushed_number ON pushed (source, number);

-- Grants on a source, besides its readers, as the newest blueprint says. A grant ends by itself after its last day
-- (UTC).
CREATE TABLE source_grant (source text NOT NULL, reader text NOT NULL, until date, PRIMARY KEY (source, reader));

-- A link opens what names `link/NAME` as a reader to whoever has opened it, until it is withdrawn or its last day (UTC)
-- is over.
CREATE TABLE shared_link (
  name text PRIMARY KEY,
  digest bytea NOT NULL UNIQUE,
  made_by uuid REFERENCES person,
  until date,
  withdrawn_at timestamptz,
  made_at timestamptz NOT NULL DEFAULT now(),
  reason text NOT NULL DEFAULT ''
);

CREATE TABLE link_holder (
  link text NOT NULL REFERENCES shared_link ON DELETE CASCADE,
  person_id uuid NOT NULL REFERENCES person,
  opened_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (person_id, link)
);

-- Sets of readers: equal sets are one `acl`, so a search asks once which of them a person has, and reads one number of
-- each row. The database keeps them itself, from document_reader and document_link (014). Sets that no document has any
-- more are deleted in the transaction in which the last document leaves them, since every search looks through all of
-- them.
CREATE TABLE acl (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  digest bytea NOT NULL UNIQUE,
  allow text[] NOT NULL,
  deny text[] NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);

CREATE TABLE acl_name (
  name text NOT NULL,
  deny boolean NOT NULL,
  acl int NOT NULL REFERENCES acl ON DELETE CASCADE,
  PRIMARY KEY (name, deny, acl)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
CREATE INDEX acl_name_acl ON acl_name (acl);

-- All names a person reads by. `public` is everybody, and nobody in particular (null); a person who has left has none.
-- Names of rules (`public`, `source/…`, `link/…`) are never those of a group or a person, whatever somebody calls one.
-- Every search asks this first: it is written so that plans are kept and are the same for one group and for thousands.
-- Grants are found by a join, which costs nothing where there are none.
CREATE FUNCTION names_of(who uuid) RETURNS text[] LANGUAGE plpgsql STABLE AS $$
DECLARE
  own text;
  mine uuid[];
  more uuid[];
  names text[];
BEGIN
  IF who IS NULL THEN
    RETURN '{public}';
  END IF;
  SELECT email INTO own FROM person WHERE id = who AND active;
  IF NOT FOUND THEN
    RETURN '{}';
  END IF;
  more := ARRAY(SELECT m.group_id FROM membership m WHERE m.person_id = who);
  mine := more;
  WHILE cardinality(more) > 0 LOOP
    more := ARRAY(SELECT DISTINCT m.group_id FROM membership m
      WHERE m.member_group_id = ANY (more) AND m.group_id <> ALL (mine));
    mine := mine || more;
  END LOOP;
  names := ARRAY(SELECT n.name FROM (
      SELECT g.name FROM people_group g WHERE g.id = ANY (mine) UNION ALL SELECT own UNION ALL SELECT 'everyone') n
    WHERE n.name <> 'public' AND NOT starts_with(n.name, 'source/') AND NOT starts_with(n.name, 'link/'));
  RETURN names || 'public'::text
    || ARRAY(SELECT DISTINCT 'source/' || g.source FROM source_grant g JOIN unnest(names) AS n(name) ON n.name = g.reader
      WHERE g.until IS NULL OR g.until >= (now() AT TIME ZONE 'UTC')::date)
    || ARRAY(SELECT 'link/' || h.link FROM link_holder h JOIN shared_link l ON l.name = h.link
      WHERE h.person_id = who AND l.withdrawn_at IS NULL
        AND (l.until IS NULL OR l.until >= (now() AT TIME ZONE 'UTC')::date));
END $$;

CREATE FUNCTION reading_names(who uuid) RETURNS SETOF text LANGUAGE sql STABLE AS $$
  SELECT unnest(names_of(who))
$$;

-- The sets of readers that a person has: named in them, and not denied.
CREATE FUNCTION acls_of(who uuid) RETURNS int[] LANGUAGE plpgsql STABLE AS $$
DECLARE
  names text[] := names_of(who);
BEGIN
  RETURN ARRAY(SELECT a.acl FROM acl_name a WHERE a.name = ANY (names) GROUP BY a.acl HAVING NOT bool_or(a.deny));
END $$;

-- What a person may read is computed once in a transaction: `groundplan.acls` keeps it as PERSON:{numbers}, and counts
-- only for the person that it begins with. Without it, each statement computes it.
CREATE FUNCTION acls_now() RETURNS int[] LANGUAGE plpgsql STABLE AS $$
DECLARE
  who text := coalesce(current_setting('groundplan.person', true), '');
  kept text := coalesce(current_setting('groundplan.acls', true), '');
BEGIN
  IF starts_with(kept, who || ':') THEN
    RETURN substr(kept, length(who) + 2)::int[];
  END IF;
  RETURN acls_of(nullif(who, '')::uuid);
END $$;

-- The number of a set of readers, which is made if there is none. Whoever makes or deletes sets holds the lock of
-- document changes until they commit, so no set is deleted while somebody takes it.
CREATE FUNCTION acl_of(allowed text[], denied text[]) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
  known int;
  mark bytea := sha256(convert_to(allowed::text || denied::text, 'UTF8'));
BEGIN
  PERFORM pg_advisory_xact_lock(1802399607);
  SELECT id INTO known FROM acl WHERE digest = mark;
  IF known IS NULL THEN
    INSERT INTO acl (digest, allow, deny) VALUES (mark, allowed, denied) RETURNING id INTO known;
    INSERT INTO acl_name SELECT DISTINCT n, false, known FROM unnest(allowed) n
      UNION ALL SELECT DISTINCT n, true, known FROM unnest(denied) n;
  END IF;
  RETURN known;
END $$;

-- Rights. A backup contains what each sequence has given out, and PostgreSQL tells that only to roles that may read the
-- sequence: without it, a restored database would count from 1 again and meet sets of readers, editions and pushes that
-- are there already.
GRANT SELECT, INSERT, UPDATE, DELETE ON source, source_declared, source_quality, pushed, source_grant, shared_link,
  link_holder, acl, acl_name TO %(db)s_control;
GRANT SELECT ON source_grant, link_holder, acl, acl_name TO %(db)s_search;
GRANT UPDATE (data, told) ON pushed TO %(db)s_control;
GRANT SELECT (name, until, withdrawn_at) ON shared_link TO %(db)s_search;
GRANT SELECT, USAGE ON SEQUENCE pushed_change TO %(db)s_control;
GRANT SELECT ON SEQUENCE acl_id_seq TO %(db)s_control;
