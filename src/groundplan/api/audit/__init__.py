"""What goes into the audit log beside its own entries, and out of it: to a SIEM, to witnesses, to an auditor's room."""
