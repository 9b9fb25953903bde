"""Streams that go on at another deployment after their first byte, for each surface that has them."""
