"""What draws itself in a notebook and can be worked with there: the widgets."""

from chainops.widgets.cache import CacheBrowser

__all__ = ["CacheBrowser"]
