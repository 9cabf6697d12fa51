"""One process, one configuration after another: a reload ends a life in good order and begins the next.

SIGHUP (`systemctl reload`) has the file read and checked. A bad one changes nothing but the status, which says why. A
good one ends what runs as a stop would, so that everything is committed, and begins anew in the same process. Should
the new life not come about after all (a port that is taken, a disk that is full), the old configuration is taken up.
"""

import logging
from collections.abc import Callable

from agent.app import Stop
from agent.config import Config
from agent.errors import Rejected, ShelfwireError
from agent.host.notify import Notifier

log = logging.getLogger(__name__)


Life = Callable[[], bool]
"""Works with one configuration until the stop or a reload; gives True when a new life shall begin."""


class Lives:
    """The configuration in force, the wish for another, and what the service manager is told."""

    def __init__(
        self,
        config: Config,
        stop: Stop,
        notifier: Notifier,
        read: Callable[..., Config] | None = None,
        check: Callable[[Config], None] = lambda _: None,
    ) -> None:
        """Begin with `config`; `read` reads it again (with `ordered` settings), `check` refuses what that lets pass.

        Both raise our errors.
        """
        self.config = config
        self.notifier = notifier
        self.kept = ""
        """Why the old configuration was kept at the last reload; empty when it was not."""
        self._stop = stop
        self._read = read
        self._check = check
        self._before: Config | None = None
        if read is not None and notifier.present:
            stop.listen_reload()

    @property
    def first(self) -> bool:
        """Whether this is the process's first life."""
        return self._before is None

    def reload_due(self) -> bool:
        """Whether a reload was asked for and its configuration is good: then this life shall end. For the main loop."""
        if self._read is None or not self._stop.take_reload():
            return False
        self.notifier.reloading()
        self.notifier.status("reading the configuration again")
        try:
            new = self._read()
            self._check(new)
        except ShelfwireError as error:
            self._keep_old(error)
            self.notifier.ready()
            return False
        log.info("the new configuration is good: it is taken up")
        self._before, self.config, self.kept = self.config, new, ""
        return True

    def try_settings(self, ordered: str) -> Config:
        """Read the configuration with other ordered settings, and check it. Raises our errors; changes nothing."""
        if self._read is None:
            raise Rejected("config", "this process cannot read its configuration again", "start it by its command")
        new = self._read(ordered=ordered)
        self._check(new)
        return new

    def run(self, begin: Callable[[], Life]) -> int:
        """Run lives until the stop; gives the exit code. Raises what `begin` raises the first time."""
        life = begin()
        while life() and self._stop.renew():
            try:
                life = begin()
            except ShelfwireError as error:
                assert self._before is not None
                self.config = self._before
                self._keep_old(error)
                life = begin()
        return 1 if self._stop.crashed else 0

    def _keep_old(self, error: ShelfwireError) -> None:
        log.error("the old configuration is kept: %s [%s]; cure: %s", error, error.code, error.hint)
        self.kept = f"old configuration kept, the new one is bad [{error.code}]: {error}; cure: {error.hint}"
