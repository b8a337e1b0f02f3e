"""The GANs as plain PyTorch: networks, losses, latents, metrics, checkpoints."""
