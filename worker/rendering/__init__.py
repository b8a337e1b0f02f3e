"""Long drawing: films and sheets, each frame the picture that the service would paint."""
