"""Where entries are kept: SQLite or PostgreSQL, and Redis, under one checksum (`stored.py`)."""
