"""The model in use, put together: its bundle opened, its alert rules, its policy. Replaced as a whole by an update."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from agent.bench import choosing
from agent.bench.choosing import Chosen
from agent.config import ORDERED, Config, nearest
from agent.core.alerting import Rule
from agent.core.decide import UNKNOWN
from agent.drafts import Policy
from agent.errors import Broken, Rejected
from agent.store.models import Models, key_of
from agent.store.opening import carefully
from agent.store.settings import SettingsFiles
from models import Bundle, BundleError, Classifier, resolve
from models.setup import Note, Setup

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Using:
    """An open model and what belongs to it. `key` is its name in the store, None for the configured bundle.

    `chosen` says how it was to be run, and why.
    """

    key: str | None
    classifier: Classifier
    policy: Policy
    chosen: Chosen

    @property
    def model(self) -> dict[str, object]:
        """How records and reports name it."""
        return dict(self.policy.model)


class Noted:
    """Warns in the log, once, of everything in which the model runs otherwise than was asked for."""

    def __init__(self) -> None:
        self._told: tuple[Note, ...] = ()

    def tell(self, classifier: Classifier) -> bool:
        """Tell what was noted since the last time, and whether there was any: an accelerator may fail at any time."""
        notes = classifier.notes
        new = [note for note in notes if note not in self._told]
        for note in new:
            log.warning("%s [%s]; cure: %s", note.message, note.code, note.hint)
        self._told = notes
        return bool(new)


def open_classifier(config: Config, workers: int, setup: Setup, bundle: Bundle, *, proven: bool = False) -> Classifier:
    """Open a bundle, and check that it answers as it should. Raises `Broken` with its code."""
    state_dir = config.device.state_dir
    try:
        with carefully(state_dir, setup) as (able, noted):
            classifier = Classifier.open(bundle, able, workers, choosing.cache_of(state_dir), noted=noted)
        if not proven:
            classifier.check_golden()
    except BundleError as error:
        raise Broken(error.code, str(error), error.hint) from None
    return classifier


def open_model(config: Config, workers: int, bundle: Bundle | None, *, proven: bool = False) -> Using:
    """Open a bundle, or the configured one, with everything that belongs to it. Raises `Broken`, `Rejected`."""
    whole = bundle if bundle is not None else configured_bundle(config)
    chosen = choosing.chosen(config, whole)
    classifier = open_classifier(config, workers, chosen.setup, whole, proven=proven)
    try:
        rules = make_rules(config, classifier.labels)
    except Rejected:
        classifier.close()
        raise
    ref = classifier.model
    model = {"name": ref.name, "version": ref.version, "release": ref.release, "digest": ref.digest}
    policy = Policy(
        threshold_of(config, whole),
        config.decide.confirm_frames,
        config.model.top,
        rules,
        model,
        classifier.runtime,
    )
    return Using(key_of(ref.digest) if bundle is not None else None, classifier, policy, chosen)


def configured_bundle(config: Config) -> Bundle:
    """Load the configured bundle. Raises `Broken`."""
    try:
        return Bundle.load(resolve(config.model.bundle))
    except BundleError as error:
        raise Broken(error.code, str(error), error.hint) from None


def threshold_of(config: Config, bundle: Bundle) -> float:
    """Give the least score of a known answer: the configured one, or the bundle's own."""
    return bundle.manifest.threshold if config.model.threshold is None else config.model.threshold


def make_rules(config: Config, labels: Iterable[str]) -> tuple[Rule, ...]:
    """Take the alert rules from the configuration. Raises `Rejected` for a label that the model does not know."""
    known = {*labels, UNKNOWN}
    for rule in config.alert:
        if rule.label not in known:
            raise Rejected(
                "alert-label",
                f'alert "{rule.name}": the model has no label "{rule.label}"; {nearest(rule.label, known)}',
                "correct the label in the configuration",
            )
    return tuple(
        Rule(rule.name, rule.label, rule.score, rule.dwell, rule.cameras, rule.quiet_hours) for rule in config.alert
    )


def models_of(config: Config) -> Models:
    """Give the device's store of models."""
    return Models(config.device.state_dir / "models", config.update.keep_free)


def settings_of(config: Config) -> SettingsFiles:
    """Give the place of the ordered settings."""
    return SettingsFiles((config.device.state_dir / ORDERED).parent)


def bundle_in_use(config: Config) -> Bundle:
    """Load the bundle that answers, or would: the one that came by an update, else the configured. Raises `Broken`."""
    try:
        return models_of(config).current() or Bundle.load(resolve(config.model.bundle))
    except BundleError as error:
        raise Broken(error.code, str(error), error.hint) from None
