"""What must hold between documents, a module for each subject. Pure; `check` is the way in."""
