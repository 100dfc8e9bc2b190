"""Checkpoints, models and calls of other libraries; a module each. Importing one may need its partner, this does not."""
