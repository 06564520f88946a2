"""What a cache does beside the requests."""

from __future__ import annotations

from chainops.core.background import Background

WAITING_AT_MOST = 256
"""Audits and comparisons beyond these are given up, and told: learning must not become a load."""

AUDITS = Background("chainops cache audits", waiting_at_most=WAITING_AT_MOST)
"""Those of this process."""
UPKEEP = Background("chainops cache upkeep", waiting_at_most=WAITING_AT_MOST)
"""Snapshots, re-embedding and reading ahead, one after the other."""
