-- An edition of the index is made beside the one that serves, compared with it, switched to, and kept to go back to.
-- `settings` are the declared ones that differ from the defaults; `ready`: whole, and held by the search services beside
-- what serves; `switching`: serves as soon as every service holds it; `kept`: served, and is kept up to date until `until`.
ALTER TABLE search_edition DROP CONSTRAINT search_edition_state_check;
ALTER TABLE search_edition ADD CHECK (state IN ('building', 'ready', 'switching', 'serving', 'kept', 'dropped'));
ALTER TABLE search_edition ADD COLUMN settings jsonb NOT NULL DEFAULT '{}', ADD COLUMN dimension int NOT NULL DEFAULT 384,
  ADD COLUMN compared jsonb, ADD COLUMN until timestamptz, ADD COLUMN declined boolean NOT NULL DEFAULT false,
  ADD CHECK (dimension BETWEEN 1 AND 4096);
CREATE UNIQUE INDEX search_edition_beside ON search_edition ((true)) WHERE state IN ('building', 'ready');
CREATE UNIQUE INDEX search_edition_switching ON search_edition ((true)) WHERE state = 'switching';
-- one edition has vectors of one length, and is never compared with another's; relaxing the type rewrites nothing
ALTER TABLE chunk ALTER COLUMN embedding TYPE halfvec;
-- who follows one edition does not read the changes of another
CREATE INDEX chunk_edition_changed ON chunk (edition, changed);

-- A search stays with the edition that it began with: a switch in its midst takes nothing from it. Only what is whole can be
-- asked for; without that, or where it is none, the edition that serves.
CREATE FUNCTION edition_now() RETURNS int LANGUAGE sql STABLE AS $$
  SELECT coalesce(
    (SELECT e.id FROM search_edition e WHERE e.id::text = current_setting('groundplan.edition', true)
       AND e.state IN ('ready', 'switching', 'serving', 'kept')),
    serving_edition())
$$;
ALTER POLICY chunk_reader ON chunk USING (
  edition = (SELECT edition_now()) AND (SELECT true FROM document d WHERE d.id = chunk.document_id));
