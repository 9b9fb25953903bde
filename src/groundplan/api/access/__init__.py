"""Who may do what with the control API: policies in `access.cedar`, which route is which action in `routes.json`."""
