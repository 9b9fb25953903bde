"""The frozen, numbered, signed artifact that every runtime reads, and nothing else: `model` is its whole shape.

Types and bytes only; what goes into one is decided in `release`.
"""
