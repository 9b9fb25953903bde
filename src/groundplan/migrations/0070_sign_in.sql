-- How a person proved who they are, and with what they can do so again.
-- A passkey counts from `confirmed_at`, or from `waits_until` where nobody could confirm it; `material` is what the device
-- showed at its registration (credential id and public key, no secret).
CREATE TABLE passkey (
  id bytea PRIMARY KEY, person_id uuid NOT NULL REFERENCES person, material bytea NOT NULL, sign_count bigint NOT NULL DEFAULT 0,
  label text NOT NULL, created_at timestamptz NOT NULL, created_by text NOT NULL, used_at timestamptz,
  confirmed_at timestamptz, confirmed_by text, waits_until timestamptz, removed_at timestamptz, removed_by text);
CREATE INDEX passkey_person ON passkey (person_id) WHERE removed_at IS NULL;
-- What a browser was asked to sign; used once, known by the SHA-256 of its name.
CREATE TABLE ceremony (
  hash bytea PRIMARY KEY, kind text NOT NULL CHECK (kind IN ('enrol', 'passkey', 'oidc')), person_id uuid REFERENCES person,
  state jsonb NOT NULL, expires_at timestamptz NOT NULL, used_at timestamptz);
-- proof: link (the local operator), recovery (a link that the operator made for a person), unconfirmed, passkey, oidc
ALTER TABLE console_session ADD COLUMN id uuid NOT NULL DEFAULT gen_random_uuid(), ADD COLUMN proof text NOT NULL DEFAULT 'recovery'
  CHECK (proof IN ('link', 'recovery', 'unconfirmed', 'passkey', 'oidc')), ADD COLUMN agent text NOT NULL DEFAULT '';
CREATE UNIQUE INDEX console_session_id ON console_session (id);
ALTER TABLE approval ADD COLUMN proof text NOT NULL DEFAULT 'recovery';
GRANT SELECT, INSERT, UPDATE ON passkey, ceremony TO %(db)s_control;
GRANT DELETE ON ceremony TO %(db)s_control;
