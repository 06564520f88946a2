"""Limits on requests, tokens and calls at a time: in one process, on one machine, or across many."""
