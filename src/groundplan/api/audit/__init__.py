"""The audit log in the control process: denials and sign-ins as entries, verification, SIEM, witnesses, data rooms."""
