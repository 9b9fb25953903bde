-- Rights for a time: auditors, who is on call, and emergencies, each with its end; an emergency is reviewed by somebody else.
CREATE TABLE appointment (
  id uuid PRIMARY KEY, person_id uuid NOT NULL REFERENCES person, role text NOT NULL CHECK (role IN ('auditor', 'on-call', 'emergency')),
  reason text NOT NULL, begins timestamptz NOT NULL, ends timestamptz NOT NULL CHECK (ends > begins), made_by text NOT NULL,
  ended_at timestamptz, ended_by text, reviewed_at timestamptz, reviewed_by text, review text);
CREATE INDEX appointment_person ON appointment (person_id, ends);
-- Tokens of programs: scoped, expiring, known by the SHA-256 of their secret.
CREATE TABLE service_token (
  id uuid PRIMARY KEY, hash bytea NOT NULL UNIQUE, name text NOT NULL, scopes text[] NOT NULL, created_at timestamptz NOT NULL,
  created_by text NOT NULL, expires_at timestamptz NOT NULL, revoked_at timestamptz, revoked_by text, used_at timestamptz);
-- Somebody wants a stopped scope to run again; somebody else must want it too.
CREATE TABLE lift_wish (
  scope text PRIMARY KEY, by text NOT NULL, proven boolean NOT NULL, reason text NOT NULL, at timestamptz NOT NULL DEFAULT now());
-- Who looked through everybody's rights, when the next time is, and what they took away.
CREATE TABLE access_review (
  id uuid PRIMARY KEY, at timestamptz NOT NULL, by text NOT NULL, rights jsonb NOT NULL, removed jsonb NOT NULL,
  comment text NOT NULL, next date NOT NULL);
GRANT SELECT, INSERT, UPDATE ON appointment, service_token TO %(db)s_control;
GRANT SELECT, INSERT, UPDATE, DELETE ON lift_wish TO %(db)s_control;
GRANT SELECT, INSERT ON access_review TO %(db)s_control;
