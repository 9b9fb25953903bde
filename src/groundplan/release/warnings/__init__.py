"""What a workspace declares that does not do what its author expects, as warnings: `collect` finds them all."""
