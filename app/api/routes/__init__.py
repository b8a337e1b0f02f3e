"""One noun a file; ROUTERS is all of them, and LEAN_ROUTES the ones asked for most."""

from app.api.routes import (
    artworks,
    blending,
    datasets,
    directions,
    docs,
    health,
    images,
    importing,
    jobs,
    keys,
    live,
    models,
    recipes,
    renders,
    training,
    variations,
)

ROUTERS = (
    images.router,
    variations.router,
    artworks.router,
    renders.router,
    recipes.router,
    blending.router,
    directions.router,  # before the models', whose names take what follows them
    live.router,
    models.router,
    importing.router,
    datasets.router,
    training.router,
    jobs.router,
    keys.router,
    health.router,
    docs.router,
)

LEAN_ROUTES = (images.IMAGE_ROUTE,)
