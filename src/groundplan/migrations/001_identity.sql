-- People, groups and duties, and how a person or a program proves who they are: links, passkeys, sessions, the
-- company's directory, tokens, and rights given for a time. API keys of applications are live policy (002), and who may
-- read which document is decided by readers (013).
--
-- What holds for the whole schema: every table belongs to the login that migrates. The parts of Groundplan act as four
-- roles without login, which own no table, are no superuser and do not bypass row-level security: %(db)s_control,
-- %(db)s_gateway, %(db)s_shipper and %(db)s_search. Each has only the rights that its code uses. Money is
-- numeric(30,12) in USD, times are timestamptz.
--
-- Functions that act as the owner of the tables (SECURITY DEFINER) may be called only by the roles named under
-- "Rights", and find temporary objects of their caller last: otherwise a caller's own table or function would act as
-- the owner.

-- The revision that the database is at, which Alembic keeps; nobody but the owner reads or writes it.
REVOKE ALL ON alembic_version FROM %(db)s_control;

CREATE TABLE person (
  id uuid PRIMARY KEY,
  email text NOT NULL UNIQUE CHECK (email = lower(email)),
  name text NOT NULL,
  active boolean NOT NULL DEFAULT true,
  left_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now()
);

-- `everyone` is a group that every active person belongs to by rule, without a row here.
CREATE TABLE people_group (
  id uuid PRIMARY KEY,
  name text NOT NULL UNIQUE,
  type text NOT NULL CHECK (type IN ('group', 'team'))
);

-- A member of a group is a person or another group.
CREATE TABLE membership (
  id uuid PRIMARY KEY,
  group_id uuid NOT NULL REFERENCES people_group,
  person_id uuid REFERENCES person,
  member_group_id uuid REFERENCES people_group,
  CHECK ((person_id IS NULL) <> (member_group_id IS NULL)),
  UNIQUE NULLS NOT DISTINCT (group_id, person_id, member_group_id)
);
CREATE INDEX membership_person ON membership (person_id);
CREATE INDEX membership_member ON membership (member_group_id);

-- Who holds which duty, for the company (subject 'company') or for a subject such as 'workload/staff-assistant'.
CREATE TABLE duty (
  subject text NOT NULL,
  duty text NOT NULL,
  person_id uuid NOT NULL REFERENCES person,
  PRIMARY KEY (subject, duty, person_id)
);

-- Who takes over the duties of a person who has left, until the workspace names another owner.
CREATE TABLE handover (
  person_id uuid PRIMARY KEY REFERENCES person,
  to_id uuid NOT NULL REFERENCES person,
  by text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  CHECK (person_id <> to_id)
);

-- The names of all groups that a person belongs to, directly or through other groups, with 'everyone' and the e-mail
-- address.
CREATE FUNCTION reader_names(who uuid) RETURNS SETOF text LANGUAGE sql STABLE AS $$
  WITH RECURSIVE mine(id) AS (
    SELECT group_id FROM membership WHERE person_id = who
    UNION SELECT m.group_id FROM membership m JOIN mine ON m.member_group_id = mine.id)
  SELECT g.name FROM mine JOIN people_group g USING (id)
  UNION SELECT 'everyone' WHERE EXISTS (SELECT 1 FROM person WHERE id = who AND active)
  UNION SELECT email FROM person WHERE id = who AND active
$$;

-- Links that sign in once. person_id NULL: the local operator.
CREATE TABLE login_link (
  hash bytea PRIMARY KEY,
  person_id uuid REFERENCES person,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  used_at timestamptz
);

-- A session in the console. `proof` is how the person signed in: link (the local operator), recovery (a link that the
-- operator made for a person), unconfirmed (a passkey that nobody has confirmed yet), passkey, oidc.
CREATE TABLE console_session (
  hash bytea PRIMARY KEY,
  person_id uuid REFERENCES person,
  acting_as uuid REFERENCES person,
  csrf text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  ended_at timestamptz,
  id uuid NOT NULL DEFAULT gen_random_uuid(),
  proof text NOT NULL DEFAULT 'recovery' CHECK (proof IN ('link', 'recovery', 'unconfirmed', 'passkey', 'oidc')),
  agent text NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX console_session_id ON console_session (id);

-- A passkey counts from `confirmed_at` on, or from `waits_until` where nobody could confirm it. `material` is what the
-- device presented at registration: credential id and public key, no secret.
CREATE TABLE passkey (
  id bytea PRIMARY KEY,
  person_id uuid NOT NULL REFERENCES person,
  material bytea NOT NULL,
  sign_count bigint NOT NULL DEFAULT 0,
  label text NOT NULL,
  created_at timestamptz NOT NULL,
  created_by text NOT NULL,
  used_at timestamptz,
  confirmed_at timestamptz,
  confirmed_by text,
  waits_until timestamptz,
  removed_at timestamptz,
  removed_by text
);
CREATE INDEX passkey_person ON passkey (person_id) WHERE removed_at IS NULL;

-- What a browser was asked to sign. Each is used once, and found by the SHA-256 of its name.
CREATE TABLE ceremony (
  hash bytea PRIMARY KEY,
  kind text NOT NULL CHECK (kind IN ('enrol', 'passkey', 'oidc')),
  person_id uuid REFERENCES person,
  state jsonb NOT NULL,
  expires_at timestamptz NOT NULL,
  used_at timestamptz
);

-- What the company's directory (OIDC, SCIM) says about a person. It reads back what it wrote: names and addresses as it
-- gave them. A person that it deleted is gone for the directory, and stays here for what they did.
CREATE TABLE directory_person (
  person_id uuid PRIMARY KEY REFERENCES person,
  issuer text,
  oidc_subject text,
  external_id text,
  user_name text UNIQUE,
  given_name text NOT NULL DEFAULT '',
  family_name text NOT NULL DEFAULT '',
  changed_at timestamptz NOT NULL DEFAULT now(),
  display_name text,
  formatted text,
  emails jsonb,
  deleted_at timestamptz,
  address_changed_at timestamptz,  -- a person known only by an address that the directory changed decides nothing by it
  UNIQUE (issuer, oidc_subject)
);

-- A group that the directory deleted keeps its name here for what is shared with it.
CREATE TABLE directory_group (
  group_id uuid PRIMARY KEY REFERENCES people_group,
  external_id text,
  changed_at timestamptz NOT NULL DEFAULT now(),
  deleted_at timestamptz
);

-- Rights for a time: auditors, people on call, emergencies. An emergency is reviewed by somebody else afterwards.
CREATE TABLE appointment (
  id uuid PRIMARY KEY,
  person_id uuid NOT NULL REFERENCES person,
  role text NOT NULL CHECK (role IN ('auditor', 'on-call', 'emergency')),
  reason text NOT NULL,
  begins timestamptz NOT NULL,
  ends timestamptz NOT NULL CHECK (ends > begins),
  made_by text NOT NULL,
  ended_at timestamptz,
  ended_by text,
  reviewed_at timestamptz,
  reviewed_by text,
  review text
);
CREATE INDEX appointment_person ON appointment (person_id, ends);

-- Access tokens of programs: scoped, expiring, found by the SHA-256 of their secret.
CREATE TABLE service_token (
  id uuid PRIMARY KEY,
  hash bytea NOT NULL UNIQUE,
  name text NOT NULL,
  scopes text[] NOT NULL,
  created_at timestamptz NOT NULL,
  created_by text NOT NULL,
  expires_at timestamptz NOT NULL,
  revoked_at timestamptz,
  revoked_by text,
  used_at timestamptz
);

-- Reviews of everybody's rights: who did one, what they took away, and when the next one is due.
CREATE TABLE access_review (
  id uuid PRIMARY KEY,
  at timestamptz NOT NULL,
  by text NOT NULL,
  rights jsonb NOT NULL,
  removed jsonb NOT NULL,
  comment text NOT NULL,
  next date NOT NULL
);

-- Rights. The gateway sees who people are and which groups they are in; the shipper sees no people, and search no names
-- of people.
GRANT SELECT, INSERT, UPDATE, DELETE ON person, people_group, membership, duty, login_link, console_session, ceremony,
  directory_person, directory_group TO %(db)s_control;
GRANT SELECT, INSERT, UPDATE ON handover, passkey, appointment, service_token TO %(db)s_control;
GRANT SELECT, INSERT ON access_review TO %(db)s_control;
GRANT SELECT ON person TO %(db)s_gateway;
GRANT SELECT ON people_group, membership TO %(db)s_gateway, %(db)s_search;
GRANT SELECT (id, email, active) ON person TO %(db)s_search;
