"""The pages, their API and their stream."""

from cloud.listening import Address, listen
from cloud.web.app import create_app, wall_clock
from cloud.web.hub import Hub
from cloud.web.pages import version_of_pages
from cloud.web.serving import serve

__all__ = ["Address", "Hub", "create_app", "listen", "serve", "version_of_pages", "wall_clock"]
