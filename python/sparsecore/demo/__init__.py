"""The demo: a real sentence encoder, pruned and packed, beside the engines people run it with."""
