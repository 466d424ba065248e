"""Runs on several hosts that work on one thing."""
