"""How good the pictures are, without weights of others."""
