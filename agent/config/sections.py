"""The sections of the configuration: frozen models, closed against unknown keys."""

import difflib
import ipaddress
import re
import typing
from datetime import time
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)

from agent.core.zones import Zone, read_zones
from models.setup import Device as Accelerator
from models.setup import Precision, Preprocess, Runtime, Setup

STATE_DIR = Path("/var/lib/shelfwire")

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1, "kB": 1000, "KiB": 1 << 10, "MB": 10**6, "MiB": 1 << 20, "GB": 10**9, "GiB": 1 << 30}


def _with_unit(value: object, units: typing.Mapping[str, float], example: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", value) if isinstance(value, str) else None
    if match is None or match[2] not in units:
        raise ValueError(f'write a number and a unit ({", ".join(units)}), for example "{example}"')
    return float(match[1]) * units[match[2]]


def _seconds(value: object) -> float:
    return _with_unit(value, _SECONDS, "30 s")


def _bytes(value: object) -> int:
    return int(_with_unit(value, _BYTES, "512 MiB"))


def _hours(value: object) -> tuple[time, time]:
    match = re.fullmatch(r"(\d\d):(\d\d)-(\d\d):(\d\d)", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('write a span of local time as "22:00-06:00"')
    first, last = time(int(match[1]), int(match[2])), time(int(match[3]), int(match[4]))
    if first == last:
        raise ValueError("the span starts and ends at the same minute")
    return first, last


Seconds = Annotated[float, BeforeValidator(_seconds)]
Bytes = Annotated[int, BeforeValidator(_bytes)]
Hours = Annotated[tuple[time, time], BeforeValidator(_hours)]
Zones = Annotated[tuple[Zone, ...], BeforeValidator(read_zones)]
AbsolutePath = Annotated[Path, AfterValidator(lambda p: p.expanduser())]


class Section(BaseModel):
    """A part of the configuration: frozen, and closed against unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Device(Section):
    """Who this device is and where it keeps its files."""

    id: str = Field(pattern=NAME, description="name of this device in the fleet, as in its certificate")
    store: str = Field("", max_length=64, description="the shop this device stands in")
    state_dir: AbsolutePath = Field(STATE_DIR, description="outbox and spool: survives a restart")
    runtime_dir: AbsolutePath = Field(Path("/run/shelfwire"), description="doorbell and last pictures: may vanish")


class Model(Section):
    """Which bundle answers, and how it is run."""

    bundle: str = Field("produce", description='a shipped bundle ("produce") or a path to a bundle folder')
    runtime: Runtime = Field("auto", description="openvino or onnxruntime; auto: as was measured (bench)")
    device: Accelerator = Field("auto", description="cpu, gpu or npu; any: the runtime chooses; auto: as was measured")
    precision: Precision = Field("auto", description="fp32 or int8; auto: as was measured, else fp32")
    streams: int = Field(0, ge=0, le=64, description="pictures computed at once; 0: as was measured, or one a worker")
    preprocess: Preprocess = Field("auto", description="colour and scale in the model's graph, or on the host; auto")
    workers: int = Field(0, ge=0, le=64, description="frames worked on at once; 0: two per core, one per camera")
    bench_after: Seconds = Field(60.0, description="measure once frames were in time so long; 0 s: by hand alone")
    threshold: float | None = Field(None, ge=0, le=1, description="overrides the bundle's threshold for `unknown`")
    top: int = Field(3, ge=1, le=10, description="how many labels a result lists")

    @property
    def setup(self) -> Setup:
        """How the model is to be run, as far as it is configured."""
        return Setup(self.runtime, self.device, self.precision, self.streams, self.preprocess)


CameraKind = Literal["rtsp", "http", "usb", "file", "folder", "snapshot", "synthetic"]


class Camera(Section):
    """One camera. `url` says what it is; a password belongs into `password_file`."""

    name: str = Field(pattern=NAME, description="name of the camera, unique on this device")
    url: str = Field(
        min_length=1,
        repr=False,  # it may hold a password
        description='rtsp://..., http(s)://..., "/dev/video0", a video file, a folder, or "synthetic:SEED"',
    )
    kind: CameraKind | None = Field(None, description="only when the url does not say it, e.g. snapshot for one JPEG")
    username: str | None = Field(None, description="camera login")
    password_file: AbsolutePath | None = Field(None, description="file that holds the camera's password")
    rate_fps: float = Field(5.0, gt=0, le=120, description="frames taken per second, at most")
    open_timeout: Seconds = Field(5.0, description="give up connecting after")
    stall_timeout: Seconds = Field(5.0, description="no new frame for this long: the camera is stalled, reconnect")
    loop: bool = Field(False, description="files and folders: start again at the end")
    deadline: Seconds | None = Field(None, description="overrides [placement] deadline for this camera")
    mask: Zones = Field((), description="zones nobody may see: corners in parts of the picture, from 0 to 1")

    @field_validator("url")
    @classmethod
    def _readable(cls, url: str) -> str:
        try:
            urlsplit(url)
        except ValueError as error:
            # The address itself may hold a password, so it is not repeated.
            raise ValueError(f"this is no address: {error}; an IPv6 host stands in [brackets]") from None
        return url

    def kind_of(self) -> CameraKind:
        """Tell the kind, from `kind` or from the url."""
        if self.kind:
            return self.kind
        scheme = urlsplit(self.url).scheme
        if scheme in ("rtsp", "rtsps"):
            return "rtsp"
        if scheme in ("http", "https"):
            return "snapshot" if self.url.lower().split("?")[0].endswith((".jpg", ".jpeg", ".png")) else "http"
        if scheme == "synthetic":
            return "synthetic"
        if self.url.startswith("/dev/video") or self.url.isdigit():
            return "usb"
        return "folder" if Path(self.url).expanduser().is_dir() else "file"


class Decide(Section):
    """When an answer counts."""

    confirm_frames: int = Field(3, ge=1, le=100, description="frames in a row before a new label is confirmed")


class AlertRule(Section):
    """When somebody must be told."""

    name: str = Field(pattern=NAME, description="name of the rule")
    label: str = Field(min_length=1, description='label that raises it, or "unknown"')
    score: float = Field(0.5, ge=0, le=1, description="least score that counts")
    dwell: Seconds = Field(5.0, description="the label must stay this long")
    cameras: tuple[str, ...] = Field((), description="only these cameras; empty: all")
    quiet_hours: tuple[Hours, ...] = Field((), description="local times in which it stays silent")


class Cloud(Section):
    """The way to the cloud. Without a broker the device works alone and keeps everything."""

    broker: str | None = Field(None, description="mqtt://host:1883 or mqtts://host:8883")
    api: str | None = Field(None, description="http(s)://host:port of the cloud's API: takes pictures, where allowed")
    username: str | None = Field(None, description="broker login, when certificates are not used")
    password_file: AbsolutePath | None = Field(None, description="file that holds the broker password")
    ca_file: AbsolutePath | None = Field(None, description="certificate authority of the broker")
    cert_file: AbsolutePath | None = Field(None, description="this device's certificate")
    key_file: AbsolutePath | None = Field(None, description="this device's private key")
    keepalive: Seconds = Field(30.0, description="a dead link is seen within twice this")
    receipt_timeout: Seconds = Field(30.0, description="send an envelope again when no receipt came")

    @property
    def own(self) -> tuple[Path, Path] | None:
        """This device's certificate and its key; None without them."""
        return None if self.cert_file is None or self.key_file is None else (self.cert_file, self.key_file)

    @model_validator(mode="after")
    def _check(self) -> "Cloud":
        if self.broker is not None:
            parts = urlsplit(self.broker)
            if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
                raise ValueError('write the broker as "mqtts://host:8883" or "mqtt://host:1883"')
            if parts.username or parts.password:
                raise ValueError("put the login into username and password_file, not into the address")
        if self.api is not None:
            parts = urlsplit(self.api)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
                raise ValueError('write the API as "https://host" or "http://host:8000", without a login')
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together: give both or none")
        for key in ("password_file", "ca_file", "cert_file", "key_file"):
            path: Path | None = getattr(self, key)
            if path is not None and not path.is_file():
                raise ValueError(f"{key}: there is no file {path}; put it there or correct the path")
        return self


class OutboxLimits(Section):
    """How much the device may keep when the cloud is away."""

    commit_rows: int = Field(50, ge=1, le=1000, description="results committed together, at most")
    commit_interval: Seconds = Field(0.05, description="longest wait for such a group; an alert never waits")
    max_bytes: Bytes = Field(1 << 30, description="bytes of waiting records, at most")
    max_rows: int = Field(5_000_000, ge=1000, description="waiting records, at most")
    reserve: Bytes = Field(8 << 20, description="kept back on disk, so that a full disk can be dug out of")


class Placement(Section):
    """Who answers a frame: this device, or the cloud when this device cannot in time."""

    deadline: Seconds = Field(0.25, description="latest useful time for an answer, from the capture on")
    overflow: Literal["auto", "night", "drop"] = Field(
        "auto", description="frames this device cannot take: auto: function, then night; night: only that; drop"
    )


class Serverless(Section):
    """Frames that the device cannot take in time go to a cloud function, within a budget."""

    per_hour: int = Field(3600, ge=0, le=1_000_000, description="frames sent to the function per hour, at most")
    burst: int = Field(60, ge=1, le=100_000, description="of these, how many may go at once after a quiet time")
    per_day_usd: float = Field(1.0, ge=0, le=100_000, description="cost per day, at most")
    usd_per_call: float = Field(0.00001, ge=0, le=1, description="what a call is taken to cost until one was billed")
    expire: Seconds = Field(30.0, description="a frame not answered by then waits for the night")
    window: int = Field(4, ge=1, le=64, description="calls under way at once")


class Review(Section):
    """Pictures that the cloud looks at again: uncertain answers, and a random part of the confident ones."""

    below: float = Field(0.6, ge=0, le=1, description="answers with a lower score are uncertain; 0: none is")
    audit: float = Field(0.0005, ge=0, le=1, description="part of the confident answers that is looked at again")
    per_hour: int = Field(60, ge=0, le=100_000, description="pictures sent for review per hour, at most")


class Batch(Section):
    """The night's batch: frames nobody could answer, and a few of every camera's for a second look."""

    keep_every: Seconds = Field(60.0, description="an answered frame of each camera is kept this often; 0 s: never")
    window: Hours = Field((time(1, 0), time(6, 0)), description="local time in which files are uploaded")
    bytes_per_second: Bytes = Field(2_000_000, description="bandwidth of an upload, at most")
    shard: Bytes = Field(64 << 20, description="size of one file, at most")


class Update(Section):
    """Where models come from, and when and how fast they may be fetched."""

    repository: str | None = Field(
        None, description="https://... or an absolute folder; default: /repository of [cloud] api"
    )
    root_file: AbsolutePath | None = Field(
        None, description="root of trust, as the operator gave it; default: models/root.json of state_dir"
    )
    window: Hours | None = Field(None, description="local time in which models are fetched; default: always")
    bytes_per_second: Bytes = Field(2_000_000, description="bandwidth of a download, at most")
    keep_free: Bytes = Field(512 << 20, description="free space that downloads never take")
    memory: Bytes = Field(768 << 20, description="memory that the process which tries a model may take, at most")
    disagreement: float = Field(
        0.1, gt=0, le=0.5, description="part of the live pictures that a new model may name otherwise"
    )
    shadow_frames: int = Field(100, ge=10, le=100_000, description="live pictures it is asked about before it answers")
    shadow_every: Seconds = Field(1.0, description="of each camera at most one picture in this time is asked about")
    shadow_limit: Seconds = Field(1800.0, description="it is refused when so few pictures came in this time")
    trial: Seconds = Field(900.0, description="how long it must do as well as the one before did in 24 hours")
    trial_limit: Seconds = Field(7200.0, description="without a decision by then the one before comes back")
    settings_trial: Seconds = Field(60.0, description="how long the device must do well with ordered settings")
    trial_frames: int = Field(50, ge=10, le=1_000_000, description="answered frames that a decision needs")

    @model_validator(mode="after")
    def _check(self) -> "Update":
        if self.repository is not None and not self.repository.startswith("/"):
            parts = urlsplit(self.repository)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
                raise ValueError('write the repository as "https://host/path" without a login, or as "/folder"')
        if self.bytes_per_second < 1000:
            raise ValueError("bytes_per_second: below 1 kB/s no model ever arrives")
        return self


class SpoolLimits(Section):
    """Pictures that wait for the cloud."""

    max_bytes: Bytes = Field(4 << 30, description="bytes of waiting pictures, at most")
    keep_free: Bytes = Field(1 << 30, description="free space that pictures never take")
    quality: int = Field(85, ge=30, le=100, description="JPEG quality of pictures for the cloud")
    max_side: int = Field(1280, ge=224, le=8192, description="pictures for the cloud are made this small")


class Privacy(Section):
    """What may leave the shop."""

    pictures: Literal["frames", "thumbnails", "none"] = Field(
        "thumbnails", description="frames: the cloud may answer; thumbnails: small ones for the Live page alone"
    )
    thumbnail_interval: Seconds = Field(1.0, description="a new thumbnail per camera at most this often")


Watched = Literal["black", "covered", "blinded", "blurred", "moved", "frozen"]


class WatchRules(Section):
    """What is said of a camera that gives pictures, but not what it should show."""

    conditions: tuple[Watched, ...] = Field(typing.get_args(Watched), description="what is looked for; []: nothing")
    every: Seconds = Field(1.0, ge=0.2, le=60, description="a look at each camera this often, at most")
    after: Seconds = Field(60.0, ge=1, le=86400, description="something must be wrong this long; frozen: twice as long")
    dark_hours: tuple[Hours, ...] = Field(
        ((time(20, 0), time(8, 0)),), description="local times in which darkness is as it should be"
    )


class Metrics(Section):
    """Prometheus endpoints of the device, on the loopback address only; 0 is off."""

    vision_port: int = Field(0, ge=0, le=65535, description="metrics of vision")
    sync_port: int = Field(0, ge=0, le=65535, description="metrics of sync")


class Local(Section):
    """The device's own page and API. Where systemd hands in the socket, the address and port are its."""

    port: int = Field(0, ge=0, le=65535, description="port of the page and API; 0: only where systemd opens one")
    address: str = Field("127.0.0.1", description="where it listens; other than this machine needs password and TLS")
    names: tuple[str, ...] = Field((), max_length=16, description="names under which other machines reach this device")
    password_file: AbsolutePath | None = Field(None, description="file that holds the page's password")
    cert_file: AbsolutePath | None = Field(None, description="certificate of the page, for https")
    key_file: AbsolutePath | None = Field(None, description="private key of that certificate")

    @model_validator(mode="after")
    def _check(self) -> "Local":
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together: give both or none")
        for key in ("password_file", "cert_file", "key_file"):
            path: Path | None = getattr(self, key)
            if path is not None and not path.is_file():
                raise ValueError(f"{key}: there is no file {path}; put it there or correct the path")
        if self.port and not _is_this_machine(self.address) and not (self.password_file and self.cert_file):
            raise ValueError(
                f"on {self.address} everybody in the network could come in: give password_file, cert_file and key_file,"
                ' or keep address = "127.0.0.1" and come through a tunnel: ssh -L 8471:localhost:8471 THIS-DEVICE'
            )
        return self


def _is_this_machine(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


class Config(Section):
    """The whole file."""

    device: Device
    model: Model = Model()
    camera: tuple[Camera, ...] = Field((), max_length=64)
    decide: Decide = Decide()
    alert: tuple[AlertRule, ...] = Field((), max_length=256)
    cloud: Cloud = Cloud()
    placement: Placement = Placement()
    serverless: Serverless = Serverless()
    review: Review = Review()
    batch: Batch = Batch()
    update: Update = Update()
    outbox: OutboxLimits = OutboxLimits()
    spool: SpoolLimits = SpoolLimits()
    privacy: Privacy = Privacy()
    watch: WatchRules = WatchRules()
    metrics: Metrics = Metrics()
    local: Local = Local()
    _ordered: str = PrivateAttr("")
    _ordered_trouble: str = PrivateAttr("")

    @property
    def ordered(self) -> str:
        """The settings that the cloud has ordered, as they lie under this configuration; empty for none."""
        return self._ordered

    @property
    def ordered_trouble(self) -> str:
        """Why the ordered settings were left out, though they are in force; empty when they were not."""
        return self._ordered_trouble

    @property
    def frames_may_leave(self) -> bool:
        """Whether the cloud may answer frames of this device: it has an address for them, and privacy allows it."""
        return self.cloud.api is not None and self.privacy.pictures == "frames"

    @property
    def repository(self) -> str | None:
        """Where models come from: an address or an absolute folder; None when nobody said."""
        if self.update.repository is not None:
            return self.update.repository
        return None if self.cloud.api is None else f"{self.cloud.api.rstrip('/')}/repository"

    @property
    def root_of_trust(self) -> Path | None:
        """The root that this device was given; None when there is none yet."""
        usual = self.device.state_dir / "models" / "root.json"
        return self.update.root_file or (usual if usual.is_file() else None)

    @model_validator(mode="after")
    def _names(self) -> "Config":
        for what, names in (("camera", [c.name for c in self.camera]), ("alert", [a.name for a in self.alert])):
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                raise ValueError(f'two {what}s are named "{twice[0]}"; every {what} needs a name of its own')
        known = {c.name for c in self.camera}
        for rule in self.alert:
            for name in rule.cameras:
                if name not in known:
                    raise ValueError(f'alert "{rule.name}" names the camera "{name}"; {nearest(name, known)}')
        return self


def nearest(wrong: str, right: typing.Iterable[str]) -> str:
    """Name the known word nearest to a wrong one, or all of a few known ones."""
    options = sorted(right)
    close = difflib.get_close_matches(wrong, options, 1, 0.5)
    if close:
        return f'did you mean "{close[0]}"?'
    return f"known are: {', '.join(options)}" if options else "none is known"
