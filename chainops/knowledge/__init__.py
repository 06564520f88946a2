"""Documents become passages with exact offsets, found by meaning and by words together."""
