"""Measurements, side by side with the programs a user would take instead; `make bench`."""
