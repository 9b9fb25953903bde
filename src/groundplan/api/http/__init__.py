"""HTTP of the control port outside of the routes: its protocol, checks of every request, uploaded files, shutdown."""
