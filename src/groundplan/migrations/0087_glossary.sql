-- What else the company says for its terms, as the newest blueprint has it: searched along with what is asked. Of documents it
-- says nothing.
CREATE TABLE glossary_term (name text PRIMARY KEY, said text[] NOT NULL);
GRANT SELECT ON glossary_term TO %(db)s_search;
GRANT SELECT, INSERT, UPDATE, DELETE ON glossary_term TO %(db)s_control;
