"""Answers in spite of failures: fallback."""
