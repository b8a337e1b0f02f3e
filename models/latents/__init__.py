"""Latents: seeds, truncation, mixing, paths, variations and directions."""
