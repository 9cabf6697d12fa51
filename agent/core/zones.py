"""Zones of a picture: polygons in parts of its width and height, as a person writes them into the configuration."""

from itertools import combinations

ZONES_MOST = 16
CORNERS_MOST = 32
LEAST_AREA = 1e-6
"""Part of the picture: a zone smaller than that hides nothing, and is a mistake."""
EXAMPLE = "[[[0.0, 0.6], [0.25, 0.6], [0.25, 1.0], [0.0, 1.0]]]"

Corner = tuple[float, float]
Zone = tuple[Corner, ...]
"""A polygon without crossing edges: its corners in order, each (x, y) from 0 to 1, (0, 0) is top left."""


def read_zones(value: object) -> tuple[Zone, ...]:
    """Check what was written. Raises ValueError, which names the zone, the corner and the cure."""
    if not isinstance(value, list | tuple) or len(value) > ZONES_MOST:
        raise ValueError(f"write a list of at most {ZONES_MOST} zones, each a list of its corners, as in {EXAMPLE}")
    return tuple(_read_zone(number, corners) for number, corners in enumerate(value, 1))


def _read_zone(number: int, corners: object) -> Zone:
    if not isinstance(corners, list | tuple) or not 2 <= len(corners) <= CORNERS_MOST:
        raise ValueError(
            f"zone {number}: write 3 to {CORNERS_MOST} corners, or 2 opposite ones of a rectangle, as in {EXAMPLE}"
        )
    zone = tuple(_read_corner(f"zone {number}, corner {n}", corner) for n, corner in enumerate(corners, 1))
    if len(zone) > 3 and zone[-1] == zone[0]:
        zone = zone[:-1]  # closed by hand, as some drawing programs do
    if len(zone) == 2:
        (left, top), (right, bottom) = zone
        zone = ((left, top), (right, top), (right, bottom), (left, bottom))
    if abs(_twice_area(*zone)) / 2 < LEAST_AREA or _touches_itself(zone):
        raise ValueError(
            f"zone {number}: its edges cross or lie in one line; list each corner once, in their order around the zone"
        )
    return zone


def _read_corner(where: str, corner: object) -> Corner:
    numbers = [_number(n) for n in corner] if isinstance(corner, list | tuple) else []
    if len(numbers) != 2 or not all(0 <= n <= 1 for n in numbers):
        raise ValueError(
            f"{where} is {str(corner)[:40]}: write [x, y] in parts of the picture from 0 to 1;"
            " divide pixels by the picture's width and height"
        )
    return numbers[0], numbers[1]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else -1.0


def _twice_area(*corners: Corner) -> float:
    """Twice a polygon's area, negative when its corners go the other way round (the shoelace formula)."""
    following = (*corners[1:], corners[0])
    return sum(ax * by - bx * ay for (ax, ay), (bx, by) in zip(corners, following, strict=True))


def _touches_itself(zone: Zone) -> bool:
    """Whether edges that are no neighbours meet. Where such a zone covers itself twice, painting leaves a hole."""
    edges = list(zip(zone, (*zone[1:], zone[0]), strict=True))
    last = len(edges) - 1
    return len(set(zone)) < len(zone) or any(
        _meet(edges[i], edges[j]) for i, j in combinations(range(len(edges)), 2) if j > i + 1 and (i, j) != (0, last)
    )


def _meet(one: tuple[Corner, Corner], other: tuple[Corner, Corner]) -> bool:
    """Whether two edges have a point in common."""
    sides = [_side(*one, other[0]), _side(*one, other[1]), _side(*other, one[0]), _side(*other, one[1])]
    if sides[0] * sides[1] < 0 and sides[2] * sides[3] < 0:
        return True
    ends = [(one, other[0]), (one, other[1]), (other, one[0]), (other, one[1])]
    return any(side == 0 and _within(edge, end) for side, (edge, end) in zip(sides, ends, strict=True))


def _side(a: Corner, b: Corner, point: Corner) -> float:
    """On which side of the line from `a` to `b` a point lies: positive, negative, or 0 on it."""
    area = _twice_area(a, b, point)
    return 0.0 if abs(area) < LEAST_AREA else area


def _within(edge: tuple[Corner, Corner], point: Corner) -> bool:
    (ax, ay), (bx, by) = edge
    return min(ax, bx) <= point[0] <= max(ax, bx) and min(ay, by) <= point[1] <= max(ay, by)
