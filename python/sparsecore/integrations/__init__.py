"""Whole checkpoints and models of other libraries; a module each, importable without the partner."""
