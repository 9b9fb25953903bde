"""Warnings about declarations that do not do what their author expects; `collect` finds them all."""
