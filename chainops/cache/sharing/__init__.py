"""One call for all who ask the same at once: flights within a process, leases between processes."""
