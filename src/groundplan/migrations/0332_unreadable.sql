-- A document that is no more found because it could not be read is told apart from one that is gone: what it replaces stays
-- out until it can be read again, or is gone as well. Which of those that there are it is of which nobody knows: none.
ALTER TABLE document ADD COLUMN unreadable boolean NOT NULL DEFAULT false;
