"""The HTTP API: routes, their schemas, and what every request passes through."""
