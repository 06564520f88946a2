"""Do not ask a route that is broken: fail at once, and try again with one call at a time."""
