-- What a document said when it changed, went or could not be read any more while a legal hold kept it: there until the hold
-- ends, for whoever may decide about the document. `text` is what was read of it, `data` the bytes of what was pushed. Role
-- search has no right to it, so no search finds it.
CREATE TABLE held_version (
  id uuid PRIMARY KEY, document_id uuid, source text NOT NULL, path text NOT NULL, version int, title text NOT NULL,
  digest text NOT NULL DEFAULT '', modified_at timestamptz, media text NOT NULL DEFAULT '', declared jsonb NOT NULL DEFAULT '{}',
  text text, data bytea, cause text NOT NULL CHECK (cause IN ('changed', 'gone', 'unreadable')),
  at timestamptz NOT NULL DEFAULT now());
CREATE INDEX held_version_place ON held_version (source, path);
CREATE INDEX held_version_document ON held_version (document_id);
GRANT SELECT, INSERT, DELETE ON held_version TO %(db)s_control;

-- Whether a legal hold keeps a document: its source's, a decision's, or else one that its folder or it itself says. What it has
-- from its source holds for as long as the source says so, and a decision holds at once, whatever a look at the source that
-- began before it writes meanwhile.
CREATE FUNCTION on_hold(d document) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT EXISTS (SELECT FROM source s WHERE s.name = d.source AND s.legal_hold)
    OR CASE d.decided #>> '{legal_hold,value}' WHEN 'true' THEN true WHEN 'false' THEN false ELSE
      coalesce(d.legal_hold AND NOT starts_with(coalesce(d.origins #>> '{legal_hold,from}', ''), 'source/'), false) END
$$;

-- `decided`: somebody deleted it, and its place stays empty; `gone`: it went at its source; `hold_ended`: `document_id` is the
-- version that the hold had kept. The last two close no place.
ALTER TABLE tombstone ADD COLUMN cause text NOT NULL DEFAULT 'decided' CHECK (cause IN ('decided', 'gone', 'hold_ended'));

DO $$ BEGIN
  IF current_setting('server_version_num')::int >= 170000 THEN
    EXECUTE 'GRANT MAINTAIN ON held_version, finding TO %(db)s_control';
  END IF;
END $$;
