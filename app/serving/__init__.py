"""Serving: recipes, loaded generators, the batcher that feeds them, and the files that come out."""
