"""The first tables: devices, results, alerts, the newest answers and pictures, quarantine and tallies."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Run the file beside this one on the driver's own connection, where percent signs and colons mean nothing."""
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(Path(__file__).with_suffix(".sql").read_text("utf-8"))


def downgrade() -> None:
    """Refuse: going back would drop every result."""
    raise NotImplementedError("restore a backup instead")
