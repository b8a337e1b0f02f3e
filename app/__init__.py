"""The service: HTTP API, command line, records, storage and serving of loaded checkpoints."""
