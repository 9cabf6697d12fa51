"""Asynchronous jobs: their tables, and the queue's own tables and functions as its package brings them."""

from pathlib import Path

from alembic import op
from procrastinate.schema import SchemaManager

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Run the file beside this one and procrastinate's schema, both in the caller's transaction."""
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(Path(__file__).with_suffix(".sql").read_text("utf-8"))
    driver.execute(SchemaManager.get_schema())


def downgrade() -> None:
    """Refuse: going back would drop every job."""
    raise NotImplementedError("restore a backup instead")
