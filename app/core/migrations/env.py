"""Alembic's entry: runs the migrations on the connection that Database.migrate hands over."""

from alembic import context

from app.core.records import Record

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Record.metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
)
with context.begin_transaction():
    context.run_migrations()
