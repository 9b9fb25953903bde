-- Governed documents: their versions, who reads them, what may be retrieved for a workload, deletions and legal holds.
-- Passages and vectors are in 015, sources and sets of readers in 013.
--
-- A document is retrievable for the workload in the setting `groundplan.workload` (unset: for no workload) if it is not
-- deleted, its `state` is approved, today (UTC) is within valid_from .. valid_until, no newer version stands in
-- `superseded_by`, it names the workload or none, and one of the workload's purposes or none, and it is not more
-- sensitive than the workload, not below its quality floor, scanned where the workload requires that, and bound to no
-- residency that the workload may leave. Search must obey this: the restrictive policies below are ANDed with every
-- other policy on `document`. With `groundplan.explain` = 'on' (set within a transaction) they show what the person may
-- read though it is kept back, so that search can say "a newer version exists"; what comes only then is never quoted.

-- The columns of a document are what holds for it: source, then folder, then the document itself, then decisions;
-- `origins` says for each where its value came from. `declared` is what folder and document say, `decided` what people
-- decided.
CREATE TABLE document (
  id uuid PRIMARY KEY,
  source text NOT NULL REFERENCES source ON DELETE CASCADE,
  path text NOT NULL,
  title text NOT NULL,
  digest text NOT NULL,
  version int NOT NULL DEFAULT 1,
  modified_at timestamptz,  -- where the source tells no time, when the content was first seen here
  review_by date,
  superseded_by uuid,
  deleted_at timestamptz,
  state text NOT NULL DEFAULT 'approved' CHECK (state IN ('draft', 'approved', 'rejected', 'superseded', 'retired')),
  sensitivity text,
  owner text,
  steward text,
  purposes text[],
  workloads text[],
  residency text[],
  licence text,
  valid_from date,
  valid_until date,
  review_days int,
  retain_until date,
  legal_hold boolean NOT NULL DEFAULT false,
  quality real,  -- 0 to 1, null: not scored yet
  scanned_at timestamptz,  -- this content was searched for personal data and secrets; null: not yet
  origins jsonb NOT NULL DEFAULT '{}',
  declared jsonb NOT NULL DEFAULT '{}',
  decided jsonb NOT NULL DEFAULT '{}',
  media text,
  bytes bigint,
  content text,  -- SHA-256 of the words alone, to recognize exact copies
  sketch bytea,  -- MinHash of the words, to recognize near copies
  token text,  -- the source's own word for this state of the document and its readers
  settled text NOT NULL DEFAULT '',  -- digest of everything that holds for it, to see at once that nothing changed
  chunked text NOT NULL DEFAULT '',  -- how it was parsed and cut
  lines int NOT NULL DEFAULT 0,
  notes text[] NOT NULL DEFAULT '{}',
  supersedes text[] NOT NULL DEFAULT '{}',  -- paths in its source that it replaces, as it says itself
  personal jsonb,  -- what the scan found: {"email": 3}; null: not scanned yet
  checked jsonb,  -- what else reading its text told: {"structure": […], "glossary": […]}
  acl int REFERENCES acl,  -- its set of readers (013)
  noted bigint NOT NULL DEFAULT 0,  -- number of the last change of its readers or its state, from chunk_change
  -- whether the process that parsed it was confined by the kernel: no sockets, no programs, no files to write
  confined boolean NOT NULL DEFAULT true,
  -- by which declared checks its tables were last looked at, and on which day where the checks ask how fresh a table
  -- is; null: by none
  tables_by text,
  -- not found any more because it could not be read: unlike of one that is gone, what it replaces stays out
  unreadable boolean NOT NULL DEFAULT false,
  UNIQUE (source, path)
);
ALTER TABLE document ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
-- No samples of contents in the planner's statistics.
ALTER TABLE document ALTER title SET STATISTICS 0, ALTER origins SET STATISTICS 0, ALTER declared SET STATISTICS 0,
  ALTER decided SET STATISTICS 0, ALTER content SET STATISTICS 0, ALTER sketch SET STATISTICS 0,
  ALTER lines SET STATISTICS 0, ALTER notes SET STATISTICS 0, ALTER personal SET STATISTICS 0;
CREATE INDEX document_content ON document (content) WHERE deleted_at IS NULL;
CREATE INDEX document_unscanned ON document (source) WHERE scanned_at IS NULL AND deleted_at IS NULL;
CREATE INDEX document_newer ON document (superseded_by) WHERE superseded_by IS NOT NULL;
CREATE INDEX document_acl ON document (acl);
CREATE INDEX document_noted ON document (noted);

-- A document that was just read is looked up with what it replaces and what replaces it, by the paths that documents
-- say they replace: few say so.
CREATE INDEX document_supersedes ON document USING gin (supersedes) WHERE supersedes <> '{}';

-- What a person answers for is looked up with each of their pages. Documents that have owner and steward from their
-- source, as most do, are found by that and are in neither index.
CREATE INDEX document_owner ON document (owner) WHERE NOT starts_with(coalesce(origins -> 'owner' ->> 'from', ''), 'source/');
CREATE INDEX document_steward ON document (steward)
  WHERE NOT starts_with(coalesce(origins -> 'steward' ->> 'from', ''), 'source/');

-- Which version was what, and when; of texts only the newest is kept.
CREATE TABLE document_version (
  document_id uuid NOT NULL REFERENCES document ON DELETE CASCADE,
  version int NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  title text NOT NULL,
  digest text NOT NULL,
  characters int NOT NULL,
  PRIMARY KEY (document_id, version)
);
-- No samples of contents in the planner's statistics.
ALTER TABLE document_version ALTER title SET STATISTICS 0;

-- Readers by name: 'everyone', a group, a team, or a person's id or address. deny wins.
CREATE TABLE document_reader (
  document_id uuid NOT NULL REFERENCES document ON DELETE CASCADE,
  reader text NOT NULL,
  deny boolean NOT NULL DEFAULT false,
  PRIMARY KEY (document_id, reader, deny)
);

-- Links by which a document is shared, apart from the readers that its source says, which every ingestion writes anew.
CREATE TABLE document_link (
  document_id uuid NOT NULL REFERENCES document ON DELETE CASCADE,
  link text NOT NULL REFERENCES shared_link ON DELETE CASCADE,
  PRIMARY KEY (document_id, link)
);

-- A restricted document is not shared by link: while it is restricted its links count for nothing, from the statement
-- that makes it so.
CREATE VIEW link_reader WITH (security_invoker = true) AS
  SELECT t.document_id, 'link/' || t.link AS reader FROM document_link t JOIN document d ON d.id = t.document_id
  WHERE d.sensitivity <> 'restricted';

-- Documents that were deleted by decision (`decided`) do not come back by themselves, whatever the source says.
-- `erased_at` is when nothing was left on the disk, at the latest `due`. `gone`: deleted at its source; `hold_ended`:
-- the version that a hold had kept (`document_id` is that version); these two do not close the place. The same lines
-- stand in HOME/tombstones.jsonl, against which a restored backup is held.
CREATE TABLE tombstone (
  id uuid PRIMARY KEY,
  document_id uuid NOT NULL,
  source text NOT NULL,
  path text NOT NULL,
  digest text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  by text NOT NULL,
  reason text NOT NULL,
  due timestamptz NOT NULL,
  erased_at timestamptz,
  lifted_at timestamptz,
  receipt uuid,
  cause text NOT NULL DEFAULT 'decided' CHECK (cause IN ('decided', 'gone', 'hold_ended')),
  -- of a place whose name was erased with a person, `path` is a digest with this salt: a guessed name can be confirmed
  -- by it, none can be read
  salt bytea
);
CREATE UNIQUE INDEX tombstone_standing ON tombstone (source, path) WHERE lifted_at IS NULL;
CREATE INDEX tombstone_due ON tombstone (due) WHERE erased_at IS NULL;

-- What a document said when it changed, was deleted or could not be read any more while a legal hold kept it: until the
-- hold ends, for whoever may decide about the document. `text` is what was read of it, `data` the bytes that were
-- pushed. The role search has no right to this table, so no search finds it.
CREATE TABLE held_version (
  id uuid PRIMARY KEY,
  document_id uuid,
  source text NOT NULL,
  path text NOT NULL,
  version int,
  title text NOT NULL,
  digest text NOT NULL DEFAULT '',
  modified_at timestamptz,
  media text NOT NULL DEFAULT '',
  declared jsonb NOT NULL DEFAULT '{}',
  text text,
  data bytea,
  cause text NOT NULL CHECK (cause IN ('changed', 'gone', 'unreadable')),
  at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX held_version_place ON held_version (source, path);
CREATE INDEX held_version_document ON held_version (document_id);

-- What the newest blueprint says a workload requires of the content that it is given. `residency`: for each
-- jurisdiction where the workload may run, the names that contain it (`NO|EEA`); none: it may run anywhere.
CREATE TABLE workload_need (
  workload text PRIMARY KEY,
  purposes text[] NOT NULL DEFAULT '{}',
  sensitivity int NOT NULL DEFAULT 3,
  quality_floor real NOT NULL DEFAULT 0,
  scanned boolean NOT NULL DEFAULT false,
  residency text[] NOT NULL DEFAULT '{}'
);

CREATE FUNCTION sensitivity_rank(level text) RETURNS int LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE level WHEN 'public' THEN 0 WHEN 'internal' THEN 1 WHEN 'confidential' THEN 2 ELSE 3 END
$$;

CREATE FUNCTION state_rank(state text) RETURNS int LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE state WHEN 'approved' THEN 0 WHEN 'draft' THEN 1 ELSE 2 END
$$;

-- The stricter of two lists of what is allowed; NULL is anything.
CREATE FUNCTION narrower(held text[], said text[]) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN said IS NULL THEN held WHEN held IS NULL THEN said
    ELSE ARRAY(SELECT unnest(held) INTERSECT SELECT unnest(said) ORDER BY 1) END
$$;

-- Whether every place where a workload may run is within what is allowed.
CREATE FUNCTION stays_within(places text[], allowed text[]) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
  SELECT cardinality(places) > 0
    AND NOT EXISTS (SELECT 1 FROM unnest(places) p WHERE NOT string_to_array(p, '|') && allowed)
$$;

-- Letters as they are compared where a name is looked for; `core/letters.py` does the same.
CREATE FUNCTION letters(said text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN octet_length(said) = length(said) THEN said
    ELSE translate(normalize(said, NFKC), E'\u2018\u2019\u02bc\u2032\u2010\u2012\u2013\u2212', '''''''''----') END
$$;

-- Whether a legal hold keeps a document: that of its source, of a decision, or else of its folder or of itself. What it
-- has from its source holds as long as the source says so, and a decision holds at once, whatever a run over the source
-- that began earlier writes meanwhile.
CREATE FUNCTION on_hold(d document) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT EXISTS (SELECT FROM source s WHERE s.name = d.source AND s.legal_hold)
    OR CASE d.decided #>> '{legal_hold,value}' WHEN 'true' THEN true WHEN 'false' THEN false ELSE
      coalesce(d.legal_hold AND NOT starts_with(coalesce(d.origins #>> '{legal_hold,from}', ''), 'source/'), false) END
$$;

-- Why a document is kept back from a workload, whoever asks, in one word; null where it is not. The policies below say
-- the same.
CREATE FUNCTION kept_back(d document, for_workload text) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT CASE
    WHEN d.deleted_at IS NOT NULL THEN 'deleted'
    WHEN d.superseded_by IS NOT NULL THEN 'superseded'
    WHEN d.state <> 'approved' THEN d.state
    WHEN d.valid_from > (now() AT TIME ZONE 'UTC')::date THEN 'not_yet_valid'
    WHEN d.valid_until < (now() AT TIME ZONE 'UTC')::date THEN 'expired'
    WHEN NOT coalesce(for_workload = ANY (d.workloads), d.workloads IS NULL) THEN 'workload'
    WHEN NOT coalesce(d.purposes && (SELECT n.purposes FROM workload_need n WHERE n.workload = for_workload), d.purposes IS NULL)
      THEN 'purpose'
    WHEN d.residency IS NOT NULL AND NOT coalesce(
      (SELECT stays_within(n.residency, d.residency) FROM workload_need n WHERE n.workload = for_workload), false)
      THEN 'residency'
    WHEN sensitivity_rank(d.sensitivity) > coalesce((SELECT n.sensitivity FROM workload_need n WHERE n.workload = for_workload), 3)
      THEN 'sensitivity'
    WHEN coalesce((SELECT n.scanned FROM workload_need n WHERE n.workload = for_workload), false) AND d.scanned_at IS NULL
      THEN 'not_scanned'
    WHEN coalesce(d.quality, 0) < coalesce((SELECT n.quality_floor FROM workload_need n WHERE n.workload = for_workload), 0)
      THEN 'quality'
  END
$$;

-- The lock 1802399607 is that of document changes: whoever gives out numbers of changes, or makes or deletes sets of
-- readers, holds it until they commit, so that followers see changes in the order of their numbers.
--
-- Delete those of some sets that no document has. The caller holds the lock.
CREATE FUNCTION clear_acls(left_by int[]) RETURNS void LANGUAGE sql AS $$
  DELETE FROM acl a WHERE a.id = ANY (left_by) AND NOT EXISTS (SELECT FROM document d WHERE d.acl = a.id)
$$;

-- Write anew which sets of readers some documents have, with the number of the change, and notify followers. A reader
-- `source/NAME` is whoever has a grant on the document's own source; on another's it is nobody. Links of a document are
-- readers, too; whoever is denied stays denied.
CREATE FUNCTION settle_readers(ids uuid[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  left_by int[];
BEGIN
  PERFORM pg_advisory_xact_lock(1802399607);
  WITH moved AS (
    UPDATE document d SET acl = n.acl, noted = nextval('chunk_change') FROM (
      SELECT w.id, w.former, acl_of(
          coalesce(array_agg(e.reader ORDER BY e.reader COLLATE "C")
            FILTER (WHERE NOT e.deny AND (e.reader = w.own OR NOT starts_with(e.reader, 'source/'))), '{}'),
          coalesce(array_agg(e.reader ORDER BY e.reader COLLATE "C")
            FILTER (WHERE e.deny AND NOT starts_with(e.reader, 'source/')), '{}')) AS acl
      FROM (SELECT o.id, o.acl AS former, 'source/' || o.source AS own FROM document o WHERE o.id = ANY (ids)) w
      LEFT JOIN LATERAL (
        SELECT r.reader, r.deny FROM document_reader r WHERE r.document_id = w.id
        UNION SELECT l.reader, false FROM link_reader l WHERE l.document_id = w.id) e ON true
      GROUP BY w.id, w.former, w.own) n
    WHERE d.id = n.id AND d.acl IS DISTINCT FROM n.acl RETURNING n.former)
  SELECT array_agg(DISTINCT former) INTO left_by FROM moved;
  IF left_by IS NOT NULL THEN
    PERFORM pg_notify('groundplan_chunks', '');
    PERFORM clear_acls(left_by);
  END IF;
END $$;

-- Once for each statement on readers or links, not once for each row.
CREATE FUNCTION document_readers_touched() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM touched) THEN
    PERFORM settle_readers(ARRAY(SELECT DISTINCT document_id FROM touched));
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER document_reader_new AFTER INSERT ON document_reader REFERENCING NEW TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION document_readers_touched();
CREATE TRIGGER document_reader_gone AFTER DELETE ON document_reader REFERENCING OLD TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION document_readers_touched();
CREATE TRIGGER document_reader_from AFTER UPDATE ON document_reader REFERENCING OLD TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION document_readers_touched();
CREATE TRIGGER document_reader_to AFTER UPDATE ON document_reader REFERENCING NEW TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION document_readers_touched();
CREATE TRIGGER document_link_new AFTER INSERT ON document_link REFERENCING NEW TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION document_readers_touched();
CREATE TRIGGER document_link_gone AFTER DELETE ON document_link REFERENCING OLD TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION document_readers_touched();

CREATE FUNCTION document_restricted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM document_link WHERE document_id = NEW.id) THEN
    PERFORM settle_readers(ARRAY[NEW.id]);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER document_restricted AFTER UPDATE OF sensitivity ON document FOR EACH ROW
  WHEN ((OLD.sensitivity <> 'restricted') IS DISTINCT FROM (NEW.sensitivity <> 'restricted'))
  EXECUTE FUNCTION document_restricted();

CREATE FUNCTION document_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM gone) THEN
    PERFORM pg_advisory_xact_lock(1802399607);
    PERFORM clear_acls(ARRAY(SELECT DISTINCT acl FROM gone WHERE acl IS NOT NULL));
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER document_gone AFTER DELETE ON document REFERENCING OLD TABLE AS gone
  FOR EACH STATEMENT EXECUTE FUNCTION document_gone();

-- What the search service keeps of a document besides its passages (path, owner, sensitivity, media, time, readers) is
-- announced in the order of commits, unless the change was numbered by whoever made it.
CREATE SEQUENCE chunk_change;

CREATE FUNCTION document_noted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(1802399607);
  UPDATE document SET noted = nextval('chunk_change') WHERE id = NEW.id;
  PERFORM pg_notify('groundplan_chunks', '');
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER document_noted AFTER UPDATE OF acl ON document DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (OLD.acl IS DISTINCT FROM NEW.acl AND OLD.noted = NEW.noted) EXECUTE FUNCTION document_noted();
CREATE CONSTRAINT TRIGGER document_described AFTER UPDATE OF path, owner, sensitivity, media, modified_at ON document
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
  WHEN (NEW.deleted_at IS NULL AND OLD.noted = NEW.noted
    AND (OLD.path, OLD.owner, OLD.sensitivity, OLD.media, OLD.modified_at)
      IS DISTINCT FROM (NEW.path, NEW.owner, NEW.sensitivity, NEW.media, NEW.modified_at))
  EXECUTE FUNCTION document_noted();

-- Row security holds for the owner of the tables, too (FORCE).
CREATE POLICY document_control ON document TO %(db)s_control USING (true) WITH CHECK (true);
CREATE POLICY document_reader ON document FOR SELECT TO %(db)s_search USING (acl IN (SELECT unnest(acls_now())));
CREATE POLICY document_governed ON document AS RESTRICTIVE FOR SELECT TO %(db)s_search USING (
  (deleted_at IS NULL AND superseded_by IS NULL AND state = 'approved'
   AND (valid_from IS NULL OR valid_from <= (now() AT TIME ZONE 'UTC')::date)
   AND (valid_until IS NULL OR valid_until >= (now() AT TIME ZONE 'UTC')::date)
   AND (workloads IS NULL OR coalesce(current_setting('groundplan.workload', true) = ANY (workloads), false))
   AND (purposes IS NULL OR coalesce(purposes && (
     SELECT n.purposes FROM workload_need n WHERE n.workload = current_setting('groundplan.workload', true)), false))
   AND CASE sensitivity WHEN 'public' THEN 0 WHEN 'internal' THEN 1 WHEN 'confidential' THEN 2 ELSE 3 END <= coalesce((
     SELECT n.sensitivity FROM workload_need n WHERE n.workload = current_setting('groundplan.workload', true)), 3)
   AND (scanned_at IS NOT NULL OR NOT coalesce((
     SELECT n.scanned FROM workload_need n WHERE n.workload = current_setting('groundplan.workload', true)), false))
   AND coalesce(quality, 0) >= coalesce((
     SELECT n.quality_floor FROM workload_need n WHERE n.workload = current_setting('groundplan.workload', true)), 0))
  OR (deleted_at IS NULL AND current_setting('groundplan.explain', true) = 'on'));
CREATE POLICY document_residency ON document AS RESTRICTIVE FOR SELECT TO %(db)s_search USING (
  residency IS NULL
  OR coalesce((SELECT stays_within(n.residency, document.residency) FROM workload_need n
       WHERE n.workload = current_setting('groundplan.workload', true)), false)
  OR current_setting('groundplan.explain', true) = 'on');

-- Lets changed_after() (015), which acts as the owner of the tables, see rows; it sees them there and nowhere else.
CREATE POLICY document_changed ON document FOR SELECT TO CURRENT_USER
  USING (current_setting('groundplan.looks_for_changes', true) = 'on');

-- Rights. Reading chunk_change tells followers up to which number no change is missing.
GRANT SELECT, INSERT, UPDATE, DELETE ON document, document_version, document_reader, document_link,
  workload_need TO %(db)s_control;
GRANT SELECT, INSERT, UPDATE ON tombstone TO %(db)s_control;
GRANT SELECT, INSERT, DELETE ON held_version TO %(db)s_control;
GRANT SELECT ON link_reader TO %(db)s_control;
GRANT SELECT ON document, workload_need TO %(db)s_search;
GRANT SELECT, USAGE ON SEQUENCE chunk_change TO %(db)s_control;
GRANT SELECT ON SEQUENCE chunk_change TO %(db)s_search;
