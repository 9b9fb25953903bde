-- What a document that was just read is replaced by, and what it replaces, is looked up with it, by the paths that documents
-- say they replace: few say so.
CREATE INDEX document_supersedes ON document USING gin (supersedes) WHERE supersedes <> '{}';
