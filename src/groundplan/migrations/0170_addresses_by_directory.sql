-- Whoever is known by an address that a directory gave them is not known by it at the company's sign-in where they decide.
ALTER TABLE directory_person ADD COLUMN address_changed_at timestamptz;
