"""A plot with a logarithmic height, as SVG, from nothing but its points."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, MARGIN = 860, 520, 90
COLOURS = ("#7a7a7a", "#c4511d", "#0b6fa4", "#3c8d40", "#b08a00", "#7b4fa0")


@dataclass(frozen=True, slots=True)
class Point:
    """Those whose series is called after a formula are drawn hollow."""

    series: str
    x: float
    y: float
    label: str


def svg(points: Sequence[Point], title: str, across: str, up: str) -> str:
    """The whole picture; `points` must not be empty and their heights positive."""
    points = list(dict.fromkeys(points))
    right = max(point.x for point in points) * 1.15
    low = math.floor(math.log10(min(point.y for point in points)))
    high = max(low + 1, math.ceil(math.log10(max(point.y for point in points))))
    series = list(dict.fromkeys(point.series for point in points))

    def place(x: float, y: float) -> tuple[float, float]:
        over = (math.log10(y) - low) / (high - low)
        return MARGIN + x / right * (WIDTH - 2 * MARGIN), HEIGHT - MARGIN - over * (HEIGHT - 2 * MARGIN)

    parts = [text(WIDTH / 2, 30, title, "middle", 16), text(WIDTH / 2, HEIGHT - 20, across, "middle")]
    parts.append(text(14, MARGIN - 24, up, "start"))
    for power in range(low, high + 1):
        _, y = place(0, 10.0**power)
        parts.append(f'<path d="M{MARGIN} {y:.1f}H{WIDTH - MARGIN}" stroke="#ddd"/>')
        parts.append(text(MARGIN - 8, y + 4, f"1e{power}", "end"))
    for tick in range(math.floor(right) + 1):
        x, y = place(tick, 10.0**low)
        parts.append(text(x, y + 20, str(tick), "middle"))
    for number, name in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        parts.append(text(WIDTH - MARGIN + 6, MARGIN + 18 * number, name, "start", colour=colour))
        for point in points:
            if point.series == name:
                x, y = place(point.x, point.y)
                fill = "none" if point.series.startswith("formula") else colour
                parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{fill}" stroke="{colour}"/>')
                parts.append(text(x + 8, y + 4 + 10 * (number - 1), point.label, "start", 10, colour))
    body = "\n".join(parts)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">'
    return f'{head}\n<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n{body}\n</svg>\n'


def text(x: float, y: float, words: str, anchor: str, size: int = 12, colour: str = "#333") -> str:
    """One line of text."""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}"'
    return f"<text {place}>{escape(words)}</text>"
