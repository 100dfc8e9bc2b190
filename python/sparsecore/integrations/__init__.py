"""Checkpoints, models and calls of other libraries, a module each; only importing one may need its partner."""
