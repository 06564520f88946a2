"""What was said before in a session."""
