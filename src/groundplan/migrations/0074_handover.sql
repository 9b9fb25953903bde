-- Who takes over from somebody who has left, until the workspace names another owner.
CREATE TABLE handover (
  person_id uuid PRIMARY KEY REFERENCES person, to_id uuid NOT NULL REFERENCES person, by text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(), CHECK (person_id <> to_id));
GRANT SELECT, INSERT, UPDATE ON handover TO %(db)s_control;
