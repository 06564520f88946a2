"""Chains over HTTP, with LangServe's routes."""
