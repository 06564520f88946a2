"""Answers that were given before: exact repeats, and questions close enough in meaning."""
