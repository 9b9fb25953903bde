-- What the company's own directory says: who somebody is at its sign-in, and under which name it keeps people and groups.
CREATE TABLE directory_person (
  person_id uuid PRIMARY KEY REFERENCES person, issuer text, oidc_subject text, external_id text, user_name text UNIQUE,
  given_name text NOT NULL DEFAULT '', family_name text NOT NULL DEFAULT '', changed_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (issuer, oidc_subject));
CREATE TABLE directory_group (
  group_id uuid PRIMARY KEY REFERENCES people_group, external_id text, changed_at timestamptz NOT NULL DEFAULT now());
GRANT SELECT, INSERT, UPDATE, DELETE ON directory_person, directory_group TO %(db)s_control;
