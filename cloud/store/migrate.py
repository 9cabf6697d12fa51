"""Brings a database to the newest schema, once, however many processes start at the same moment."""

from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from cloud.errors import Broken

MIGRATIONS = Path(__file__).parent / "migrations"

_LOCK = 0x5368656C66
"""Key of the advisory lock that makes starters wait for each other ("Shelf" in ASCII)."""


def migrate(dsn: str) -> None:
    """Run the migrations that the database lacks, all in one transaction.

    Raises `Broken`: ``store-newer`` when a newer Shelfwire has written it, ``store-migration`` when a statement fails.
    """
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn), poolclass=NullPool)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        raise Broken(
            "store-newer", f"the database was written by a newer Shelfwire: {error}", "update Shelfwire on this machine"
        ) from error
    except (SQLAlchemyError, psycopg.Error) as error:
        cause = str(getattr(error, "orig", None) or error).strip()
        raise Broken(
            "store-migration",
            f"the database could not be brought up to date: {cause}",
            "see that the DSN's user may create tables in this database",
        ) from error
    finally:
        engine.dispose()
