"""The synthetic camera: a rendered shop shelf whose truth is known, deterministic by seed and frame number.

A camera looks at one facing: a crate full of one product between a shelf above and a price rail below. The
light drifts, the sensor is noisy, the mount trembles, and from time to time an arm passes and the crate holds
another product. Everything dear is drawn when a facing changes; a frame is a copy, a light table and noise.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

from agent.camera import synthetic_sprites as sprites
from agent.camera.synthetic_sprites import Pixels, Sprite

import cv2  # isort: skip
import numpy as np

PRODUCTS: tuple[str, ...] = tuple(sprites.DRAWINGS)
"""The labels a scene can show, spelt as the produce bundle spells them."""

_BASE_HEIGHT = 720  # the drawing is laid out for 720 lines and scaled
_MARGIN_PX = 8  # drawn beyond the picture's edges, so that the camera may tremble
_PASSING_FRAMES = 12  # how long the arm is in the picture when the facing changes
_LEAST_SIZE = (160, 90)
_MOST_SIZE = (3840, 2160)
_CRATE_TOP, _CRATE_LIP, _RAIL_TOP = 150, 556, 622  # lines of the 720
_NOISE_TILE = 256


@dataclass(frozen=True, slots=True)
class _Look:
    """What differs from camera to camera, drawn from the seed."""

    wall: tuple[float, float, float]
    crate: tuple[float, float, float]
    wooden: bool
    warmth: float
    size: float
    dwell_frames: int
    period_frames: float
    phase: float
    sway: tuple[float, float, float, float]


class Scene:
    """One camera's shelf. `render(i)` gives frame i, whatever was asked before; one scene serves one thread.

    `width` and `height` are in pixels, `labels` the products that take turns, each from PRODUCTS.
    Raises ValueError for a size or a label that cannot be drawn.
    """

    def __init__(self, seed: int, width: int = 1280, height: int = 720, labels: tuple[str, ...] = PRODUCTS) -> None:
        if not (_LEAST_SIZE[0] <= width <= _MOST_SIZE[0] and _LEAST_SIZE[1] <= height <= _MOST_SIZE[1]):
            raise ValueError(f"a scene is {_LEAST_SIZE} to {_MOST_SIZE} pixels, not {(width, height)}")
        strange = [label for label in labels if label not in sprites.DRAWINGS]
        if strange or not labels:
            raise ValueError(f"cannot draw {strange or 'nothing'}; choose from {', '.join(PRODUCTS)}")
        self.seed = seed
        self.width = width
        self.height = height
        self.labels = tuple(labels)
        self._look = _look(seed)
        self._order: list[str] = [self.labels[i] for i in np.random.default_rng((seed, 1)).permutation(len(labels))]
        self._drawn: dict[int, Pixels] = {}  # the facings of at most two turns
        self._arm: Sprite | None = None

    @property
    def dwell_frames(self) -> int:
        """For how many frames the facing shows one product."""
        return self._look.dwell_frames

    def truth(self, frame_index: int) -> str:
        """The product in the facing at `frame_index` (>= 0)."""
        if frame_index < 0:
            raise ValueError("frames are counted from 0")
        return self._order[(frame_index // self._look.dwell_frames) % len(self._order)]

    def render(self, frame_index: int) -> tuple[Pixels, str]:
        """Frame `frame_index` (>= 0) as (height, width, 3) BGR, and the label of the product it shows."""
        truth = self.truth(frame_index)
        facing = self._facing(frame_index // self._look.dwell_frames, truth)
        left, top = self._tremble(frame_index)
        seen = facing[top : top + self.height, left : left + self.width]
        frame = np.asarray(cv2.LUT(seen, self._light(frame_index)), np.uint8)
        self._pass_arm(frame, frame_index)
        self._add_noise(frame, frame_index)
        return frame, truth

    def _facing(self, turn: int, label: str) -> Pixels:
        """The whole still picture of one turn, drawn once and kept while it is near."""
        if turn not in self._drawn:
            self._drawn = {kept: picture for kept, picture in self._drawn.items() if abs(kept - turn) == 1}
            self._drawn[turn] = _draw_facing(self._look, (self.seed, 2, turn), label, self.width, self.height)
        return self._drawn[turn]

    def _tremble(self, frame_index: int) -> tuple[int, int]:
        """Where the picture is cut from the facing: a slow sway of a few pixels and a jolt now and then."""
        ax, ay, px, py = self._look.sway
        jolt = np.random.default_rng((self.seed, 3, frame_index // 3)).integers(-1, 2, 2)
        unit = min(1.0, self.height / _BASE_HEIGHT)
        dx = round(unit * (3.2 * math.sin(frame_index / ax + px) + int(jolt[0])))
        dy = round(unit * (2.4 * math.sin(frame_index / ay + py) + int(jolt[1])))
        return _MARGIN_PX + dx, _MARGIN_PX + dy

    def _light(self, frame_index: int) -> Pixels:
        """A table (1, 256, 3) for the light of this frame: brightness and colour drift within minutes."""
        angle = 2 * math.pi * frame_index / self._look.period_frames + self._look.phase
        gain = 1.0 + 0.13 * math.sin(angle) + 0.012 * math.sin(frame_index * 1.7)
        warm = self._look.warmth + 0.03 * math.sin(angle * 0.61 + 1)
        ramp = np.arange(256, dtype=np.float32)[None, :, None]
        gains = np.array([gain * (1 - warm), gain, gain * (1 + warm)], np.float32)
        return np.asarray(np.clip(ramp * gains, 0, 255), np.uint8)

    def _pass_arm(self, frame: Pixels, frame_index: int) -> None:
        """A clerk's arm sweeps through while the facing changes."""
        dwell = self._look.dwell_frames
        since = (frame_index + _PASSING_FRAMES // 2) % dwell
        if since >= _PASSING_FRAMES or frame_index < dwell - _PASSING_FRAMES:
            return
        if self._arm is None:
            self._arm = sprites.scaled(_arm(), self.height / _BASE_HEIGHT)
        run = since / (_PASSING_FRAMES - 1)
        reach = math.sin(run * math.pi)
        left = round(self.width * (0.78 - 0.50 * run))
        top = round(self.height * (1.0 - 0.80 * reach))
        sprites.lay(frame, self._arm, left - self._arm.colour.shape[1] // 4, top)

    def _add_noise(self, frame: Pixels, frame_index: int) -> None:
        """The sensor's grain: a tile of noise laid at a place that changes with every frame."""
        brighter, darker = _noise(self.width, self.height)
        left, top = np.random.default_rng((self.seed, 4, frame_index)).integers(0, _NOISE_TILE, 2)
        window = (slice(top, top + self.height), slice(left, left + self.width))
        cv2.add(frame, brighter[window], dst=frame)
        cv2.subtract(frame, darker[window], dst=frame)


def _look(seed: int) -> _Look:
    rng = np.random.default_rng((seed, 0))
    shade = rng.uniform(0.16, 0.34)
    walls = [(1.05, 1.0, 0.92), (0.92, 1.0, 1.06), (1.0, 1.0, 1.0), (1.10, 1.02, 0.86)]
    wall = walls[int(rng.integers(len(walls)))]
    crates = [(0.24, 0.46, 0.66), (0.30, 0.54, 0.72), (0.20, 0.36, 0.52), (0.17, 0.18, 0.18), (0.20, 0.34, 0.14)]
    kind = int(rng.integers(len(crates)))
    periods = rng.uniform(17, 41, 2)
    return _Look(
        wall=(shade * wall[0], shade * wall[1], shade * wall[2]),
        crate=crates[kind],
        wooden=kind < 3,
        warmth=float(rng.uniform(-0.05, 0.07)),
        size=float(rng.uniform(0.90, 1.12)),
        dwell_frames=int(rng.integers(70, 131)),
        period_frames=float(rng.uniform(500, 1100)),
        phase=float(rng.uniform(0, 2 * math.pi)),
        sway=(float(periods[0]), float(periods[1]), float(rng.uniform(0, 6)), float(rng.uniform(0, 6))),
    )


def _draw_facing(look: _Look, seed: tuple[int, ...], label: str, width: int, height: int) -> Pixels:
    """The still picture (height + 2 margins, width + 2 margins, 3) of a crate of `label` on its shelf."""
    rng = np.random.default_rng(seed)
    unit = height / _BASE_HEIGHT
    columns = math.ceil(width / unit) + 2 * _MARGIN_PX
    rows = _BASE_HEIGHT + 2 * _MARGIN_PX
    canvas = _back_wall(look, rng, rows, columns)
    _neighbours(canvas, look, rng, label)
    left, right = columns // 2 - min(560, columns // 2 + 40), columns // 2 + min(560, columns // 2 + 40)
    _pile(canvas, look, rng, label, (left, right))
    _crate(canvas, look, rng, left, right)
    _shelf_above(canvas, look)
    _price_rail(canvas, rng, label, columns // 2)
    _vignette(canvas)
    size = (width + 2 * _MARGIN_PX, height + 2 * _MARGIN_PX)
    if (columns, rows) == size:
        return canvas
    interpolation = cv2.INTER_AREA if unit < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(canvas, size, interpolation=interpolation), np.uint8)


def _back_wall(look: _Look, rng: np.random.Generator, rows: int, columns: int) -> Pixels:
    """A plain wall, lit from the strip above, out of focus."""
    glow = 0.55 + 0.9 * np.exp(-np.arange(rows, dtype=np.float32) / 190)
    stain = 1 + 0.06 * sprites.grain(rng, (rows // 8, columns // 8), 12)
    wall = np.asarray(cv2.resize(stain, (columns, rows), interpolation=cv2.INTER_CUBIC), np.float32) * glow[:, None]
    return np.clip(wall[..., None] * np.array(look.wall, np.float32) * 255, 0, 255).astype(np.uint8)


def _neighbours(canvas: Pixels, look: _Look, rng: np.random.Generator, label: str) -> None:
    """The facings left and right of ours: other products, out of focus."""
    others = [other for other in PRODUCTS if other != label]
    columns = canvas.shape[1]
    for left, right in ((-160, columns // 2 - 570), (columns // 2 + 570, columns + 160)):
        if right - left > 180:
            # out of focus, one drawing of each will do; the others would only cost time at the start
            _pile(canvas, look, rng, others[int(rng.integers(len(others)))], (left, right), variants=1)
    canvas[:] = cv2.GaussianBlur(canvas, (0, 0), 7)


def _pile(
    canvas: Pixels,
    look: _Look,
    rng: np.random.Generator,
    label: str,
    columns: tuple[int, int],
    variants: int = sprites.VARIANTS,
) -> None:
    """Rows of one product from the back of the crate to its front, nearer ones larger and brighter."""
    left, right = columns
    drawing = sprites.DRAWINGS[label]
    crate = canvas[:, max(left, 0) : right]
    offset = min(left, 0)
    _shadow(crate, _CRATE_TOP + 10, 90, 0.88)
    crate[_CRATE_TOP + 100 : _CRATE_LIP + 60] //= 8
    item_px = drawing.height_px * look.size
    first, last = _CRATE_TOP + item_px * 0.46, _CRATE_LIP + 6 - item_px * 0.30
    for row in range(drawing.rows):
        near = row / (drawing.rows - 1)
        middle = first + (last - first) * near
        distance = 0.80 + 0.20 * near
        across = item_px * drawing.aspect * drawing.column * distance
        count = math.ceil((right - left) / across) + 1
        for place in rng.permutation(np.arange(count) + rng.uniform(-0.5, 0.0)):
            item = sprites.scaled(
                sprites.sprite(label, int(rng.integers(variants))),
                look.size * distance * rng.uniform(0.94, 1.06),
                (0.68 + 0.34 * near) * rng.uniform(0.93, 1.05),
            )
            high, wide = item.colour.shape[:2]
            x = offset + (place + 0.5 + rng.uniform(-0.07, 0.07)) * across
            y = middle + rng.uniform(-0.05, 0.05) * item_px
            sprites.lay(crate, item, round(x - wide / 2), round(y - high / 2))


def _crate(canvas: Pixels, look: _Look, rng: np.random.Generator, left: int, right: int) -> None:
    """The crate's front lip and its two side walls."""
    lip = _CRATE_LIP + _MARGIN_PX
    left, right = max(left, 0), min(right, canvas.shape[1])
    _shadow(canvas[:, left:right], lip - 26, 26, 0.55)
    _board(canvas, look, rng, (lip, lip + 30, left, right), 1.0)
    _board(canvas, look, rng, (lip + 34, lip + 66, left, right), 0.82)
    for edge, sign in ((left, 1), (right - 16, -1)):
        if 16 <= edge < canvas.shape[1] - 16:
            _board(canvas, look, rng, (_CRATE_TOP + 70, lip + 66, edge, edge + 16), 0.9 if sign > 0 else 0.7)


def _board(canvas: Pixels, look: _Look, rng: np.random.Generator, box: tuple[int, int, int, int], light: float) -> None:
    """One plank or plastic bar over rows y0..y1 and columns x0..x1."""
    y0, y1, x0, x1 = box
    shape = (y1 - y0, x1 - x0)
    if look.wooden:
        fibres = sprites.grain(rng, (shape[0], max(2, shape[1] // 24)), 2.5)
        tone = 1 + 0.16 * np.asarray(cv2.resize(fibres, (shape[1], shape[0])), np.float32)
    else:
        tone = np.ones(shape, np.float32)
    bevel = np.clip(1.22 - np.arange(shape[0], dtype=np.float32) / max(shape[0], 40) * 0.55, 0.6, 1.3)
    bevel[:2] *= 1.18
    shade = tone * bevel[:, None] * light
    canvas[y0:y1, x0:x1] = np.clip(shade[..., None] * np.array(look.crate, np.float32) * 255, 0, 255).astype(np.uint8)


def _shadow(part: Pixels, top: int, rows: int, depth: float) -> None:
    """Darken `rows` lines of `part` from `top`, more and more downwards."""
    lines = part[top : top + rows]
    fall = 1 - depth * np.linspace(0, 1, len(lines), dtype=np.float32) ** 2
    lines[:] = (lines * fall[:, None, None]).astype(np.uint8)


def _shelf_above(canvas: Pixels, look: _Look) -> None:
    """The underside of the next shelf with its strip of light, and the shade below it."""
    rail = np.array([0.70, 0.71, 0.70], np.float32)
    ramp = np.concatenate([np.linspace(1.0, 0.78, 44), np.linspace(0.42, 0.20, 24)]).astype(np.float32)
    canvas[:68] = (np.clip(ramp[:, None] * rail * 255, 0, 255)).astype(np.uint8)[:, None]
    strip = np.exp(-(((np.arange(40, dtype=np.float32) - 6) / 9) ** 2))[:, None, None]
    glow = np.array([1.0 - look.warmth, 0.98, 0.95 + look.warmth], np.float32) * 255
    below = canvas[64:104].astype(np.float32)
    canvas[64:104] = np.clip(below + (glow - below) * strip * 0.92, 0, 255).astype(np.uint8)


def _price_rail(canvas: Pixels, rng: np.random.Generator, label: str, middle: int) -> None:
    """The rail in front of the shelf, with our product's price ticket in its middle."""
    top = _RAIL_TOP + _MARGIN_PX
    rows = canvas.shape[0] - top
    ramp = np.concatenate([np.full(4, 1.12), np.linspace(0.97, 0.80, rows - 4)]).astype(np.float32)
    shades = ramp[:, None] * np.array([0.69, 0.70, 0.69], np.float32) * 255
    canvas[top:] = np.clip(shades, 0, 255).astype(np.uint8)[:, None]
    for place in (middle - 470, middle, middle + 470):
        name = label if place == middle else ""
        _ticket(canvas, rng, (place - 118, top + 10), name)


def _ticket(canvas: Pixels, rng: np.random.Generator, corner: tuple[int, int], name: str) -> None:
    """A paper ticket, 236 x 74 pixels: name, price and bars."""
    x, y = corner
    if x < 0 or x + 236 > canvas.shape[1]:
        return
    cv2.rectangle(canvas, (x + 3, y + 4), (x + 239, y + 78), (112, 114, 112), -1)
    cv2.rectangle(canvas, (x, y), (x + 236, y + 74), (238, 243, 244), -1)
    cv2.rectangle(canvas, (x, y), (x + 236, y + 16), (66, 128, 44), -1)
    words = name.replace("-", " ") if name else "Offer"
    price = f"{rng.integers(0, 4)}.{rng.integers(1, 10)}9"
    cv2.putText(canvas, words, (x + 10, y + 38), cv2.FONT_HERSHEY_SIMPLEX, 0.52, (48, 44, 40), 1, cv2.LINE_AA)
    cv2.putText(canvas, price, (x + 140, y + 62), cv2.FONT_HERSHEY_DUPLEX, 0.98, (40, 36, 34), 2, cv2.LINE_AA)
    bar = x + 10
    while bar < x + 112:
        thick = int(rng.integers(1, 4))
        cv2.rectangle(canvas, (bar, y + 48), (bar + thick - 1, y + 66), (60, 58, 56), -1)
        bar += thick + int(rng.integers(2, 4))


def _vignette(canvas: Pixels) -> None:
    """Darker corners, as a small lens gives them."""
    rows, columns = canvas.shape[:2]
    y = np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, columns, dtype=np.float32)[None, :]
    fall = 1 - 0.20 * np.clip(x * x * 0.75 + y * y * 0.5, 0, 1.2)
    canvas[:] = (canvas * fall[..., None]).astype(np.uint8)


@lru_cache(maxsize=1)
def _arm() -> Sprite:
    """A sleeve and a hand reaching in from below, out of focus."""
    rows, columns = 760, 420
    colour = np.zeros((rows, columns, 3), np.uint8)
    solid = np.zeros((rows, columns), np.uint8)
    palm = (120, 130)
    skin, sleeve = (118, 148, 196), (74, 58, 46)
    for tip, thick in (((60, 36), 30), ((96, 18), 32), ((134, 22), 32), ((170, 44), 28), ((196, 112), 32)):
        cv2.line(colour, palm, tip, skin, thick, cv2.LINE_AA)
        cv2.line(solid, palm, tip, 255, thick, cv2.LINE_AA)
    for picture, hand, cloth in ((colour, skin, sleeve), (solid, 255, 255)):
        cv2.ellipse(picture, palm, (62, 72), 0, 0, 360, hand, -1, cv2.LINE_AA)
        cv2.line(picture, palm, (190, 300), hand, 84, cv2.LINE_AA)
        cv2.fillPoly(picture, [np.array([(118, 262), (236, 214), (420, 760), (190, 760)])], cloth, cv2.LINE_AA)
    across = np.clip(1.15 - np.linspace(0, 0.55, columns, dtype=np.float32), 0.4, 1.2)
    shaded = np.clip(colour * across[None, :, None], 0, 255)
    soft = np.asarray(cv2.GaussianBlur(solid, (0, 0), 6), np.float32) / 255
    tinted = np.asarray(cv2.GaussianBlur(shaded.astype(np.float32), (0, 0), 6), np.float32)
    shadow = np.asarray(cv2.GaussianBlur(solid, (0, 0), 26), np.float32) / 255 * 0.5
    through = (1 - soft) * (1 - shadow)
    spread = np.repeat(through[..., None], 3, axis=2)
    return Sprite(np.clip(tinted, 0, 255).astype(np.uint8), (spread * 255).astype(np.uint8))


@lru_cache(maxsize=4)
def _noise(width: int, height: int) -> tuple[Pixels, Pixels]:
    """Two pictures, one tile larger than a frame: what the sensor adds and what it takes away."""
    rng = np.random.default_rng(0)
    shape = (height + _NOISE_TILE, width + _NOISE_TILE, 3)
    swing = rng.standard_normal(shape, dtype=np.float32) * np.float32(3.4)
    return np.clip(swing, 0, 255).astype(np.uint8), np.clip(-swing, 0, 255).astype(np.uint8)
