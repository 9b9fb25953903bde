-- The company's directory reads what it wrote: names and addresses as it said them. What it deleted is gone for it, while
-- the person stays for what they did, and the group's name for what is shared with it.
ALTER TABLE directory_person ADD COLUMN display_name text, ADD COLUMN formatted text, ADD COLUMN emails jsonb,
  ADD COLUMN deleted_at timestamptz;
UPDATE directory_person d SET display_name = p.name FROM person p WHERE p.id = d.person_id AND d.user_name IS NOT NULL;
ALTER TABLE directory_group ADD COLUMN deleted_at timestamptz;
