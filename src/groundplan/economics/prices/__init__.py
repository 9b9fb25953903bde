"""Prices and usage: the usage reports of providers read into one type, and price lists with their history."""
