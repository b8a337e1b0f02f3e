"""Latents: seeds, truncation and mixing."""
