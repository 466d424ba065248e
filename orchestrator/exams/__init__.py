"""Exams: a clock, five categories, and marks."""
