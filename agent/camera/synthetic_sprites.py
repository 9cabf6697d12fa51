"""Fruit and vegetables drawn from shapes: a height field and a skin colour, then light.

Nothing here is a photo. A shape is a field of heights over a small canvas; its slopes give the light, the
skin gives the colour, and the result is a sprite that can be laid on a picture with its contact shadow.
Colours are BGR in 0..1, lengths are in half canvas heights, y points down.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import agent as _agent  # noqa: F401  # sets the limits of the picture decoder before cv2 is imported

import cv2  # isort: skip
import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]
Colour = tuple[float, float, float]
Pixels = npt.NDArray[np.uint8]

VARIANTS = 5
"""Different drawings kept per product: enough that a pile does not look copied."""

SHARPNESS = 2
"""Sprites are drawn this many times larger and averaged down, which smooths their edges."""

_LIGHT = np.array([-0.32, -0.74, 0.59], np.float32)  # from above, a little from the left, towards the camera
_HALFWAY = (_LIGHT + np.array([0, 0, 1], np.float32)) / np.linalg.norm(_LIGHT + np.array([0, 0, 1]))


@dataclass(frozen=True, slots=True)
class Sprite:
    """One drawn item: `colour` (H, W, 3) already weighted by its opacity, `through` what shows through it.

    Laying it on a picture is `picture * through / 255 + colour`; `through` also holds the contact shadow.
    """

    colour: Pixels
    through: Pixels


@dataclass(slots=True)
class _Form:
    """A shape under construction: heights (0 is nothing), skin colour, and how it shines."""

    height: Field
    skin: Field
    shine: float = 0.35
    hardness: float = 26.0


@dataclass(frozen=True, slots=True)
class Drawing:
    """How a product is drawn and piled: canvas size in pixels at 720 lines, and spacing in its sizes."""

    draw: Callable[[np.random.Generator, Field, Field], _Form]
    height_px: int
    aspect: float
    column: float
    rows: int


@lru_cache(maxsize=80)
def sprite(label: str, variant: int) -> Sprite:
    """Drawing `variant` (0..VARIANTS-1) of a product, always the same. Raises KeyError for another label."""
    drawing = DRAWINGS[label]
    seed = [ord(letter) for letter in label]
    rng = np.random.default_rng([*seed, variant])
    rows = drawing.height_px * SHARPNESS
    columns = round(rows * drawing.aspect)
    y, x = np.meshgrid(
        np.linspace(-1, 1, rows, dtype=np.float32),
        np.linspace(-drawing.aspect, drawing.aspect, columns, dtype=np.float32),
        indexing="ij",
    )
    form = drawing.draw(rng, x, y)
    return _finish(_shade(form, 2.0 / rows), form.height > 0, drawing.height_px)


def lay(picture: Pixels, item: Sprite, left: int, top: int) -> None:
    """Lay `item` on `picture` (H, W, 3) with its corner at (left, top), cut at the picture's edges."""
    rows, columns = item.colour.shape[:2]
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + rows, picture.shape[0]), min(left + columns, picture.shape[1])
    if y0 >= y1 or x0 >= x1:
        return
    part = picture[y0:y1, x0:x1]
    cut = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    behind = cv2.multiply(part, item.through[cut], scale=1 / 255)
    cv2.add(behind, item.colour[cut], dst=part)


def scaled(item: Sprite, factor: float, brightness: float = 1.0) -> Sprite:
    """The sprite `factor` times as large and `brightness` times as bright."""
    size = (max(2, round(item.colour.shape[1] * factor)), max(2, round(item.colour.shape[0] * factor)))
    colour = cv2.resize(item.colour, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    through = cv2.resize(item.through, size, interpolation=cv2.INTER_LINEAR)
    if brightness != 1.0:
        colour = cv2.convertScaleAbs(colour, alpha=brightness)
    return Sprite(np.asarray(colour, np.uint8), np.asarray(through, np.uint8))


def grain(rng: np.random.Generator, shape: tuple[int, ...], cell_px: float, octaves: int = 3) -> Field:
    """Smooth noise in about -1..1 with features of `cell_px`, finer ones at half the strength each."""
    rows, columns = shape[0], shape[1]
    total = np.zeros((rows, columns), np.float32)
    for octave in range(octaves):
        cell = max(1.0, cell_px / 2**octave)
        coarse = rng.standard_normal((math.ceil(rows / cell) + 3, math.ceil(columns / cell) + 3)).astype(np.float32)
        wide = cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_CUBIC)
        total += np.asarray(wide, np.float32) * np.float32(0.5**octave)
    return np.asarray(total * np.float32(0.5), np.float32)


def _shade(form: _Form, pixel: float) -> Field:
    """Light the form: diffuse from above, sky and bounce, a highlight, darker towards the edges."""
    slope_y, slope_x = np.gradient(form.height, np.float32(pixel))
    length = np.sqrt(slope_x**2 + slope_y**2 + 1)
    nx, ny, nz = -slope_x / length, -slope_y / length, 1 / length
    facing = nx * _LIGHT[0] + ny * _LIGHT[1] + nz * _LIGHT[2]
    diffuse = np.clip(facing * 0.72 + 0.28, 0, 1)
    sky = 0.5 - 0.5 * ny
    bounce = np.clip(ny, 0, 1)
    edge = 0.5 + 0.5 * np.sqrt(nz)
    light = (0.16 + 0.22 * sky + 0.78 * diffuse + 0.10 * bounce) * edge
    mirror = np.clip(nx * _HALFWAY[0] + ny * _HALFWAY[1] + nz * _HALFWAY[2], 0, 1)
    glint = form.shine * (mirror**form.hardness + 0.28 * mirror ** (form.hardness / 5))
    lit = form.skin * light[..., None] + glint[..., None] * np.array([1.0, 0.98, 0.94], np.float32)
    return np.asarray(np.clip(lit, 0, 1), np.float32)


def _finish(lit: Field, mask: npt.NDArray[np.bool_], height_px: int) -> Sprite:
    """Average down to the final size, and put the soft shadow under the item."""
    size = (round(lit.shape[1] / SHARPNESS), height_px)
    solid = mask.astype(np.float32)
    opacity = np.asarray(cv2.resize(solid, size, interpolation=cv2.INTER_AREA), np.float32)
    colour = np.asarray(cv2.resize(lit * solid[..., None], size, interpolation=cv2.INTER_AREA), np.float32)
    fallen = np.roll(opacity, height_px // 26, axis=0)
    shadow = np.asarray(cv2.GaussianBlur(fallen, (0, 0), height_px / 24), np.float32) * 0.72
    shadow *= _fade(opacity.shape, height_px // 14)
    through = (1 - opacity) * (1 - shadow)
    spread = np.repeat(through[..., None], 3, axis=2)
    return Sprite((colour * 255).astype(np.uint8), (spread * 255).astype(np.uint8))


def _fade(shape: tuple[int, ...], margin_px: int) -> Field:
    """1 inside, falling to 0 at the canvas edges, so that a shadow never ends in a straight line."""
    ramps = [np.minimum(np.arange(count), np.arange(count)[::-1]) / margin_px for count in shape[:2]]
    return np.clip(np.minimum(ramps[0][:, None], ramps[1][None, :]), 0, 1).astype(np.float32)


def _turn(x: Field, y: Field, angle: float) -> tuple[Field, Field]:
    c, s = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return x * c + y * s, y * c - x * s


def _skin(shape: tuple[int, ...], colour: Colour) -> Field:
    return np.broadcast_to(np.array(colour, np.float32), (*shape[:2], 3)).copy()


def _mix(skin: Field, colour: Colour, weight: Field) -> None:
    """Blend `colour` into `skin` in place, by `weight` (0..1) per pixel."""
    skin += (np.array(colour, np.float32) - skin) * np.clip(weight, 0, 1)[..., None]


def _dome(q: Field, thickness: float) -> Field:
    """Heights of a rounded body from q = 1 at its middle to 0 at its outline."""
    return np.sqrt(np.clip(q, 0, None)).astype(np.float32) * np.float32(thickness)


def _spot(x: Field, y: Field, at: tuple[float, float], radius: float) -> Field:
    return np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / np.float32(radius**2)).astype(np.float32)


def _tube(x: Field, y: Field, spine: npt.NDArray[np.float64], radii: npt.NDArray[np.float64]) -> tuple[Field, Field]:
    """A round body along `spine` (n, 2): its heights, and where along the spine (0..1) each pixel is."""
    height = np.zeros_like(x)
    along = np.zeros_like(x)
    step, corner = float(x[0, 1] - x[0, 0]), np.array([x[0, 0], y[0, 0]])
    last = len(radii) - 1
    for number in range(last):
        (ax, ay), (bx, by), ra, rb = spine[number], spine[number + 1], radii[number], radii[number + 1]
        low = np.minimum(spine[number], spine[number + 1]) - max(ra, rb) - corner
        high = np.maximum(spine[number], spine[number + 1]) + max(ra, rb) - corner
        (c0, r0), (c1, r1) = np.maximum(low / step, 0).astype(int), np.maximum(high / step + 2, 0).astype(int)
        part = (slice(r0, r1), slice(c0, c1))
        dx, dy = np.float32(bx - ax), np.float32(by - ay)
        px, py = x[part] - np.float32(ax), y[part] - np.float32(ay)
        run = np.clip((px * dx + py * dy) / (dx * dx + dy * dy), 0, 1)
        radius = np.float32(ra) + np.float32(rb - ra) * run
        body = np.sqrt(np.clip(radius**2 - (px - run * dx) ** 2 - (py - run * dy) ** 2, 0, None))
        higher = body > height[part]
        height[part] = np.where(higher, body, height[part])
        along[part] = np.where(higher, (number + run) / np.float32(last), along[part])
    smooth = np.asarray(cv2.GaussianBlur(height * height, (0, 0), 0.022 / step), np.float32)  # where pieces meet
    return np.where(height > 0, np.sqrt(smooth), 0).astype(np.float32), along


def _stem(form: _Form, x: Field, y: Field, spine: list[tuple[float, float]], radius: float, colour: Colour) -> None:
    """A thin stalk through the given points, in front of what is there."""
    ends = np.array(spine)
    steps = np.linspace(0, len(ends) - 1, 8)
    points = np.stack([np.interp(steps, range(len(ends)), ends[:, axis]) for axis in (0, 1)], axis=1)
    stalk, _ = _tube(x, y, points, np.linspace(radius, radius * 0.8, 8))
    there = stalk > 0
    form.height = np.where(there, form.height.max() * np.float32(0.9) + stalk, form.height).astype(np.float32)
    form.skin[there] = colour


def _citrus(
    rng: np.random.Generator, x: Field, y: Field, colour: Colour, ripe: Colour, length: float, tip: float
) -> _Form:
    angle = rng.uniform(-0.7, 0.7) + (math.pi if rng.random() < 0.5 else 0)
    u, v = _turn(x, y, angle)
    point = tip * (_spot(u, v, (length, 0), 0.17) + _spot(u, v, (-length, 0), 0.13))
    q = 1 - (u / length) ** 2 - (v / 0.74) ** 2 + point
    pores = grain(rng, x.shape, 5, 2)
    height = _dome(q, 0.74)
    skin = _skin(x.shape, colour)
    _mix(skin, ripe, 0.5 + 0.6 * grain(rng, x.shape, 70))
    _mix(skin, (0.10, 0.26, 0.30), 0.85 * _spot(u, v, (-length * 0.72, 0.08), 0.055))
    height = np.where(height > 0, height + pores * np.float32(0.0055), 0)
    return _Form(height.astype(np.float32), skin, shine=0.22, hardness=18)


def _orange(rng: np.random.Generator, x: Field, y: Field) -> _Form:
    return _citrus(rng, x, y, (0.03, 0.47, 0.98), (0.02, 0.38, 0.95), 0.76, 0.0)


def _lemon(rng: np.random.Generator, x: Field, y: Field) -> _Form:
    return _citrus(rng, x, y, (0.12, 0.86, 0.99), (0.08, 0.76, 0.96), 0.84, 0.34)


def _lime(rng: np.random.Generator, x: Field, y: Field) -> _Form:
    return _citrus(rng, x, y, (0.10, 0.56, 0.36), (0.12, 0.66, 0.52), 0.80, 0.22)


def _apple(rng: np.random.Generator, x: Field, y: Field, taper: float) -> _Form:
    """An apple's body with its stalk hollow at the top; the skin is left plain."""
    u, v = _turn(x, y, rng.uniform(-0.35, 0.35))
    width = 0.80 - taper * np.clip(v, -0.2, 1)
    crown = 0.16 * _spot(u, v, (0, -0.86), 0.30)
    q = 1 - (u / width) ** 2 - ((v - 0.02) / 0.79) ** 2 - crown
    height = _dome(q.astype(np.float32), 0.76)
    hollow = _spot(u, v, (0, -0.55), 0.17)
    form = _Form(np.where(height > 0, height - 0.24 * hollow, 0).astype(np.float32), _skin(x.shape, (0, 0, 0)))
    form.height = np.where(height > 0, np.clip(form.height, 0.02, None), 0).astype(np.float32)
    return form


def _apple_stalk(rng: np.random.Generator, form: _Form, x: Field, y: Field) -> None:
    lean = rng.uniform(-0.14, 0.14)
    _stem(form, x, y, [(0.0, -0.52), (lean * 0.4, -0.72), (lean, -0.88)], 0.032, (0.12, 0.24, 0.34))


def _granny(rng: np.random.Generator, x: Field, y: Field) -> _Form:
    form = _apple(rng, x, y, 0.05)
    form.skin[:] = (0.18, 0.74, 0.52)
    _mix(form.skin, (0.30, 0.84, 0.70), 0.45 + 0.5 * grain(rng, x.shape, 90))
    _mix(form.skin, (0.62, 0.93, 0.84), 0.7 * (grain(rng, x.shape, 6, 1) > 0.95).astype(np.float32))
    _mix(form.skin, (0.12, 0.42, 0.34), _spot(x, y, (0, -0.55), 0.16))
    _apple_stalk(rng, form, x, y)
    form.shine = 0.42
    return form


def _red_apple(rng: np.random.Generator, x: Field, y: Field) -> _Form:
    form = _apple(rng, x, y, 0.17)
    form.skin[:] = (0.10, 0.06, 0.58)
    around = np.arctan2(x, -(y + 1.5) - 0.2)
    streaks = np.sin(around * 90 + 2 * grain(rng, x.shape, 60)) * 0.5 + grain(rng, x.shape, 30)
    _mix(form.skin, (0.16, 0.16, 0.76), 0.38 * np.clip(streaks, 0, 1))
    _mix(form.skin, (0.20, 0.45, 0.74), 0.8 * _spot(x, y, (0, -0.55), 0.22))
    _mix(form.skin, (0.45, 0.55, 0.85), 0.55 * (grain(rng, x.shape, 6, 1) > 0.98).astype(np.float32))
    _apple_stalk(rng, form, x, y)
    form.shine = 0.5
    return form


def _tomato(rng: np.random.Generator, x: Field, y: Field) -> _Form:
    u, v = _turn(x, y, rng.uniform(-0.4, 0.4))
    lobes = 0.012 * np.cos(5 * np.arctan2(v, u) + rng.uniform(0, 6))
    q = 1 - (u / (0.82 + lobes)) ** 2 - (v / (0.74 + lobes)) ** 2
    height = _dome(q.astype(np.float32), 0.72)
    form = _Form(height, _skin(x.shape, (0.06, 0.10, 0.86)), shine=0.6, hardness=42)
    _mix(form.skin, (0.06, 0.22, 0.92), 0.35 + 0.5 * grain(rng, x.shape, 80))
    at = (rng.uniform(-0.12, 0.12), rng.uniform(-0.42, -0.28))
    du, dv = u - at[0], (v - at[1]) * 1.5
    distance, angle = np.hypot(du, dv), np.arctan2(dv, du)
    reach = 0.34 * np.abs(np.cos(2.5 * angle + rng.uniform(0, 3))) ** 1.6 + 0.07
    leaf = (distance < reach) & (height > 0)
    form.height = np.where(leaf, form.height + 0.05 - 0.08 * distance, form.height).astype(np.float32)
    form.skin[leaf] = (0.16, 0.47, 0.22)
    lean = rng.uniform(-0.1, 0.1)
    stalk = [at, (at[0] + lean, at[1] - 0.16), (at[0] + 2 * lean, at[1] - 0.24)]
    _stem(form, u, v, stalk, 0.04, (0.18, 0.44, 0.26))
    return form


def _watermelon(rng: np.random.Generator, x: Field, y: Field) -> _Form:
    u, v = _turn(x, y, rng.uniform(-0.25, 0.25))
    height = _dome(1 - (u / 1.06) ** 2 - (v / 0.80) ** 2, 0.80)
    reach = np.sqrt(np.clip(1 - (u / 1.06) ** 2, 0.02, None))
    around = np.arcsin(np.clip(v / (0.80 * reach), -1, 1)) + rng.uniform(0, 1)
    ragged = grain(rng, x.shape, 26, 4)
    stripe = np.sin(around * 10.5 + 1.5 * ragged)
    skin = _skin(x.shape, (0.30, 0.66, 0.52))
    _mix(skin, (0.11, 0.30, 0.12), np.clip(stripe * 2.2 + 0.7 + 0.8 * ragged, 0, 1))
    _mix(skin, (0.10, 0.36, 0.16), 0.35 + 0.3 * grain(rng, x.shape, 12))
    return _Form(height, skin, shine=0.30, hardness=20)


def _avocado(rng: np.random.Generator, x: Field, y: Field) -> _Form:
    u, v = _turn(x, y, rng.uniform(-1.0, 1.0))
    width = 0.66 - 0.24 / (1 + np.exp((v + 0.18) * 7))
    height = _dome((1 - (u / width) ** 2 - (v / 0.90) ** 2).astype(np.float32), 0.64)
    bumps = grain(rng, x.shape, 9, 2)
    height = np.where(height > 0, np.clip(height + 0.018 * bumps, 0.01, None), 0).astype(np.float32)
    skin = _skin(x.shape, (0.10, 0.25, 0.17))
    _mix(skin, (0.13, 0.38, 0.26), 0.4 + 0.8 * grain(rng, x.shape, 50))
    _mix(skin, (0.10, 0.13, 0.14), 0.5 * np.clip(bumps, 0, 1))
    form = _Form(height, skin, shine=0.20, hardness=14)
    _stem(form, u, v, [(0, -0.84), (0, -0.93)], 0.055, (0.14, 0.30, 0.34))
    return form


def _arc(
    length: float, bend: float, angle: float, at: tuple[float, float], points: int = 30
) -> npt.NDArray[np.float64]:
    """Points along an arc of the given length that turns by `bend` radians, starting at `at`."""
    headings = angle + np.linspace(-bend / 2, bend / 2, points)
    steps = np.stack([np.cos(headings), np.sin(headings)], axis=1) * (length / (points - 1))
    return np.asarray(np.cumsum(steps, axis=0) - steps[0] + np.array(at), np.float64)


def _bananas(rng: np.random.Generator, x: Field, y: Field) -> _Form:
    """A hand of bananas: fingers that fan out from one crown, the front ones over the back ones."""
    fingers = 4
    form = _Form(np.zeros_like(x), _skin(x.shape, (0.10, 0.78, 0.95)), shine=0.20, hardness=12)
    freckles = np.clip((grain(rng, x.shape, 9, 2) - 0.75) * 2.5, 0, 1)
    shift = rng.uniform(-0.06, 0.06)
    for finger in range(fingers):
        spread = finger / (fingers - 1)
        spine = _arc(2.05, -1.25, 0.10 + 0.42 * spread + shift, (-0.98, -0.42 + 0.13 * spread), points=18)
        run = np.linspace(0, 1, len(spine))
        ends = np.clip(np.minimum(run / 0.20, (1 - run) / 0.13), 0, 1)
        body, along = _tube(x, y, spine, 0.062 + 0.128 * np.sqrt(ends) * (0.9 + 0.1 * np.sin(run * math.pi)))
        there = body > 0
        form.height = np.where(there, body + np.float32(0.10 * finger + 0.02), form.height).astype(np.float32)
        skin = _skin(x.shape, (0.13, 0.80 - 0.03 * spread, 0.96))
        _mix(skin, (0.16, 0.70, 0.72), np.clip(1 - along / 0.22, 0, 1) * 0.9)
        tips = np.clip((along - 0.945) / 0.03, 0, 1) + np.clip((0.05 - along) / 0.03, 0, 1) * 0.7
        _mix(skin, (0.08, 0.20, 0.26), tips)
        _mix(skin, (0.10, 0.30, 0.46), freckles * 0.55)
        form.skin[there] = skin[there]
    return form


def _cucumber(rng: np.random.Generator, x: Field, y: Field) -> _Form:
    length, bend = 4.0, rng.uniform(-0.35, 0.35)
    angle = rng.uniform(-0.10, 0.10)
    spine = _arc(length, bend, angle, (-length / 2 * math.cos(angle), -length / 2 * math.sin(angle) + bend * 0.35))
    run = np.linspace(0, 1, len(spine))
    height, along = _tube(x, y, spine, 0.50 * np.clip(np.minimum(run / 0.09, (1 - run) / 0.07), 0.25, 1) ** 0.5)
    warts = np.clip(grain(rng, x.shape, 15, 1) - 0.55, 0, 1)
    height = np.where(height > 0, height + 0.07 * warts, 0).astype(np.float32)
    skin = _skin(x.shape, (0.11, 0.34, 0.14))
    lengthwise = np.asarray(cv2.GaussianBlur(grain(rng, x.shape, 14, 2), (121, 1), 0), np.float32)
    _mix(skin, (0.24, 0.58, 0.40), 0.22 + 1.9 * lengthwise)
    ends = np.clip(1 - along / 0.09, 0, 1) * 0.7 + np.clip((along - 0.94) / 0.06, 0, 1) * 0.5
    _mix(skin, (0.30, 0.66, 0.56), ends)
    return _Form(height, skin, shine=0.30, hardness=22)


def _carrot(rng: np.random.Generator, x: Field, y: Field) -> _Form:
    length, angle = 3.6, rng.uniform(-0.09, 0.09)
    mirrored = -1.0 if rng.random() < 0.5 else 1.0
    spine = _arc(length, rng.uniform(-0.25, 0.25), angle, (-length / 2 + 0.2, -length / 2 * math.sin(angle)))
    run = np.linspace(0, 1, len(spine))
    radii = (0.48 - 0.36 * run**1.25) * np.clip(run / 0.035, 0.45, 1) ** 0.5
    body, along = _tube(x, y, spine, radii)
    if mirrored < 0:
        body, along = body[:, ::-1], along[:, ::-1]
    rings = np.clip(np.sin(along * 95 + 5 * grain(rng, x.shape, 30)) - 0.72, 0, 1)
    height = np.where(body > 0, body - 0.06 * rings, 0).astype(np.float32)
    skin = _skin(x.shape, (0.07, 0.42, 0.95))
    _mix(skin, (0.05, 0.34, 0.86), 0.4 + 0.7 * grain(rng, x.shape, 40))
    _mix(skin, (0.06, 0.24, 0.62), 1.3 * rings)
    _mix(skin, (0.16, 0.42, 0.40), np.clip(1 - along / 0.05, 0, 1))
    form = _Form(np.clip(height, 0, None), skin, shine=0.16, hardness=14)
    left = float(spine[0, 0]) * mirrored
    for _ in range(3):
        tip = (left - mirrored * rng.uniform(0.20, 0.34), float(spine[0, 1]) + rng.uniform(-0.22, 0.22))
        _stem(form, x, y, [(left - mirrored * -0.06, float(spine[0, 1])), tip], 0.07, (0.20, 0.56, 0.34))
    return form


def _aubergine(rng: np.random.Generator, x: Field, y: Field) -> _Form:
    angle = rng.uniform(-0.12, 0.12)
    spine = _arc(2.35, rng.uniform(-0.5, 0.5), angle, (-1.15, rng.uniform(-0.1, 0.1)))
    run = np.linspace(0, 1, len(spine))
    radii = (0.34 + 0.33 / (1 + np.exp(-(run - 0.48) * 9))) * np.clip((1 - run) / 0.10 + 0.6, 0, 1) ** 0.5
    height, along = _tube(x, y, spine, radii)
    form = _Form(height, _skin(x.shape, (0.17, 0.06, 0.16)), shine=0.62, hardness=30)
    _mix(form.skin, (0.26, 0.10, 0.26), 0.4 + 0.6 * grain(rng, x.shape, 80))
    lateral = (y - np.float32(spine[0, 1])) / np.float32(0.34)
    cap = (along < 0.05 + 0.10 * np.abs(np.cos(lateral * 4.5 + rng.uniform(0, 2)))) & (height > 0)
    cap &= x < np.float32(spine[0, 0] + 0.42)
    form.height = np.where(cap, form.height + 0.05, form.height).astype(np.float32)
    form.skin[cap] = (0.20, 0.50, 0.32)
    end = (float(spine[0, 0]), float(spine[0, 1]))
    _stem(form, x, y, [(end[0] - 0.28, end[1]), (end[0] - 0.50, end[1] - 0.10)], 0.085, (0.20, 0.46, 0.32))
    return form


DRAWINGS: dict[str, Drawing] = {
    "Banana": Drawing(_bananas, 250, 1.25, 0.60, 4),
    "Orange": Drawing(_orange, 190, 1.0, 0.70, 5),
    "Lemon": Drawing(_lemon, 160, 1.1, 0.68, 6),
    "Lime": Drawing(_lime, 146, 1.1, 0.68, 6),
    "Granny-Smith": Drawing(_granny, 190, 1.0, 0.72, 4),
    "Red-Delicious": Drawing(_red_apple, 192, 1.0, 0.70, 4),
    "Watermelon": Drawing(_watermelon, 330, 1.3, 0.70, 2),
    "Vine-Tomato": Drawing(_tomato, 170, 1.05, 0.72, 5),
    "Avocado": Drawing(_avocado, 190, 1.0, 0.58, 5),
    "Aubergine": Drawing(_aubergine, 196, 1.9, 0.50, 5),
    "Cucumber": Drawing(_cucumber, 124, 4.4, 0.38, 10),
    "Carrots": Drawing(_carrot, 112, 4.2, 0.34, 12),
}
"""The products that can be drawn, by their label in the produce bundle."""
