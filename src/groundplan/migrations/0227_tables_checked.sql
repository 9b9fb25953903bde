-- By which declared checks, and on which day where they ask how fresh a table is, the tables of a document were looked at last;
-- null: by none. What is there already is looked at once more.
ALTER TABLE document ADD COLUMN tables_by text;
