"""One noun a file; ROUTERS is all of them."""

from app.api.routes import datasets, health, images, jobs, models, training

ROUTERS = (images.router, models.router, datasets.router, training.router, jobs.router, health.router)
