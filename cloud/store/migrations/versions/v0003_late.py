"""Late answers: verdicts, their way back to the devices, and the night's shards."""

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Run the file beside this one in the caller's transaction."""
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(Path(__file__).with_suffix(".sql").read_text("utf-8"))


def downgrade() -> None:
    """Refuse: going back would drop every late answer."""
    raise NotImplementedError("restore a backup instead")
