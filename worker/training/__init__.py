"""Training a GAN on one dataset: a pure core that reports through callbacks."""
