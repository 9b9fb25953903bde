"""HTTP of the control port before and after any route: its protocol, checks of every request, files sent, shutdown."""
