-- How far the audit log was sent to the company's SIEM.
CREATE TABLE siem_position (
  one boolean PRIMARY KEY DEFAULT true CHECK (one), leaf bigint NOT NULL DEFAULT 0, sent_at timestamptz);
INSERT INTO siem_position DEFAULT VALUES;
GRANT SELECT, UPDATE ON siem_position TO %(db)s_control;
