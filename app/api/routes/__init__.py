"""One noun a file; ROUTERS is all of them, and LEAN_ROUTES the ones asked for most."""

from app.api.routes import datasets, health, images, jobs, models, recipes, training

ROUTERS = (
    images.router,
    recipes.router,
    models.router,
    datasets.router,
    training.router,
    jobs.router,
    health.router,
)

LEAN_ROUTES = (images.IMAGE_ROUTE,)
