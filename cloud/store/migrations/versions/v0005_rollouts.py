"""Rollouts: labels, orders and reports of devices, and the audit."""

from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Run the file beside this one in the caller's transaction."""
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(Path(__file__).with_suffix(".sql").read_text("utf-8"))


def downgrade() -> None:
    """Refuse: going back would lose the audit, and count orders from 1 again."""
    raise NotImplementedError("restore a backup instead")
