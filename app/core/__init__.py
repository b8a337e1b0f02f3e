"""What the service and the worker share: settings, records, storage, jobs and the queue; neither FastAPI nor torch."""
