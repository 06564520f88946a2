"""What may be spent, what was, and on whom: checked before every call to a model, settled after it."""
