"""Prompts as files beside the code and as versions in MLflow's registry."""
