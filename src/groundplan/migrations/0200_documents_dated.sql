-- A document whose source tells no time was changed when its content was first seen here: how long it is kept and when a
-- review is due count from then. What is there already was first seen when its newest version was taken over. The owner of
-- the tables sees no row of theirs while row security is forced on it.
ALTER TABLE document NO FORCE ROW LEVEL SECURITY;
UPDATE document d SET modified_at = coalesce((SELECT max(v.at) FROM document_version v WHERE v.document_id = d.id), now())
WHERE d.modified_at IS NULL AND d.deleted_at IS NULL;
ALTER TABLE document FORCE ROW LEVEL SECURITY;
