"""Identity: devices of the fleet, the codes by which they enrol, and their certificates."""

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Run the file beside this one in the caller's transaction."""
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(Path(__file__).with_suffix(".sql").read_text("utf-8"))


def downgrade() -> None:
    """Refuse: going back would let revoked devices in again."""
    raise NotImplementedError("restore a backup instead")
