-- A kill for security ends answers that are under way too. Scopes: company | provider/N | model/N | workload/N | deployment/N |
-- source/N | tool/N | key/ID | site/N.
ALTER TABLE kill_switch ADD COLUMN streams boolean NOT NULL DEFAULT false;
