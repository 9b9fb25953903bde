-- The head row of the table that a passage begins in, where it stands in a passage before: without it nobody knows what the
-- rows say. It is context beside the text, whose characters stay those of the document.
ALTER TABLE chunk ADD COLUMN head text NOT NULL DEFAULT '';
