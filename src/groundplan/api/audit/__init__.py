"""The audit log in the control process: entries about denials and failed sign-ins, verification, SIEM, witnesses, data
rooms."""
