#!/usr/bin/env python3
"""Draws charts/postrider/files/dashboard.json as dashboard.svg, in the looks of Grafana's dark theme.

    docs/pictures/grafana.py PROMETHEUS END SECONDS SCRAPE_SECONDS      the SECONDS before END, Unix time

A panel is where its `gridPos` says, and shows what PROMETHEUS answers to its own queries, with its unit, thresholds,
colours and legend. What a panel asks for that is not known here ends it: nothing is left out in silence.
"""

import json
import math
import re
import sys
import time
import urllib.parse
import urllib.request
from html import escape
from itertools import pairwise
from pathlib import Path

HERE = Path(__file__).resolve().parent
DASHBOARD = HERE.parents[1] / "charts/postrider/files/dashboard.json"

# Pixels: Grafana's grid has 24 columns, rows of 30 and gaps of 8.
WIDTH, MARGIN, GAP, ROW, TOP = 1200, 12, 8, 30, 56
COLUMN = (WIDTH - 2 * MARGIN + GAP) / 24
FONTS = "Inter,'Helvetica Neue',Helvetica,Arial,'Liberation Sans','DejaVu Sans',sans-serif"
# The widest of these fonts, DejaVu Sans, takes about this part of its size for a character.
CHARACTER = 0.62
TEXT, FAINT, PAGE, PANEL, LINE = "#ccccdc", "#8e8f9b", "#111217", "#181b1f", "#2b2d33"
COLOURS = {
    "green": "#73bf69", "yellow": "#fade2a", "orange": "#ff9830", "red": "#f2495c", "blue": "#5794f2",
    "purple": "#b877d9", "light-blue": "#8ab8ff", "semi-dark-yellow": "#f2cc0c", "semi-dark-orange": "#ff780a",
}  # fmt: skip
# The beginning of palette-classic.
PALETTE = ["green", "semi-dark-yellow", "light-blue", "semi-dark-orange", "red", "blue", "purple"]
LEGEND_ROW = 20
TICK_SECONDS = 180


# --- Prometheus ---


class Prometheus:
    def __init__(self, url, end, seconds, scrape_seconds):
        self.url, self.end, self.start, self.step = url, end, end - seconds, scrape_seconds
        # As Grafana takes it: four scrapes, where a point stands for less.
        self.variables = {"$__rate_interval": f"{4 * scrape_seconds}s", "$__range": f"{seconds}s", "$namespace": ".*"}

    def ask(self, target):
        query = target["expr"]
        for name, value in self.variables.items():
            query = query.replace(name, value)
        if "$" in query:
            raise SystemExit(f"a variable is not known: {query}")
        if target.get("instant"):
            return self.get("query", query=query, time=self.end)
        return self.get("query_range", query=query, start=self.start, end=self.end, step=self.step)

    def get(self, what, **parameters):
        with urllib.request.urlopen(f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}") as answer:
            return json.load(answer)["data"]["result"]


def legend(target, labels):
    return re.sub(r"{{(\w+)}}", lambda name: labels.get(name[1], ""), target["legendFormat"])


# --- Values, as Grafana writes them ---


def short(value, decimals=None):
    if decimals is not None:
        return f"{value:.{decimals}f}"
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def seconds(value, decimals=None):
    for unit, size in ("s", 1), ("ms", 1e-3), ("µs", 1e-6):
        if abs(value) >= size:
            return f"{short(value / size, decimals)} {unit}"
    return "0 s"


def duration(value, _=None):
    days, rest = divmod(int(value), 86400)
    clock = time.strftime("%H:%M:%S", time.gmtime(rest))
    return f"{days} d {clock}" if days else clock


UNITS = {
    "short": short,
    "s": seconds,
    "dtdurations": duration,
    "percentunit": lambda value, decimals=None: short(value * 100, decimals) + "%",
    "eps": lambda value, decimals=None: short(value, decimals) + " evt/s",
    "ops": lambda value, decimals=None: short(value, decimals) + " ops/s",
    "suffix:days": lambda value, decimals=None: short(value, decimals) + " days",
}


def write(field, value):
    return UNITS[field["unit"]](value, field.get("decimals"))


def threshold(field, value):
    steps = field["thresholds"]["steps"]
    return COLOURS[[step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1]]


# --- SVG ---


def text(x, y, content, size=12, colour=TEXT, anchor="start", weight=400):
    style = f' text-anchor="{anchor}"' if anchor != "start" else ""
    style += f' font-weight="{weight}"' if weight != 400 else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}"{style}>{escape(content, quote=False)}</text>'


def box(x, y, width, height, fill, stroke=None, radius=3):
    outline = f' stroke="{stroke}"' if stroke else ""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius}" fill="{fill}"{outline}/>'


def line(x1, y1, x2, y2, colour=LINE):
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{colour}"/>'


# --- Panels: each is drawn into a width and a height ---


def stat(panel, prometheus, width, height):
    field = panel["fieldConfig"]["defaults"]
    (target,) = panel["targets"]
    result = prometheus.ask(target)
    shown, colour = "No data", TEXT
    if result:
        value = float(result[0]["value"][1])
        shown, colour = write(field, value), threshold(field, value)
    size = min(46, (width - 24) / len(shown) / CHARACTER)
    return text(width / 2, height / 2 + 12 + size * 0.36, shown, round(size), colour, "middle", 500)


def table(panel, prometheus, width, height):
    field = panel["fieldConfig"]["defaults"]
    (target,) = panel["targets"]
    _, organize = panel["transformations"]
    order, names = organize["options"]["indexByName"], organize["options"]["renameByName"]
    columns = sorted(order, key=order.get)
    (by,) = panel["options"]["sortBy"]
    key = next(column for column in columns if names[column] == by["displayName"])
    records = [result["metric"] | {"Value": float(result["value"][1])} for result in prometheus.ask(target)]
    records.sort(key=lambda record: record[key], reverse=by["desc"])

    row, left = 36, 16
    parts = []
    for place, column in enumerate(columns):
        x, anchor = left + place * width / len(columns), "start"
        if column == "Value":
            x, anchor = width - left, "end"
        parts.append(text(x, 56, names[column], 12, TEXT, anchor, 500))
        for number, record in enumerate(records):
            y = 68 + row * number
            if y + row > height:
                raise SystemExit(f"{panel['title']}: {len(records)} rows do not fit")
            value, colour = record[column], TEXT
            if column == "Value":
                value, colour = write(field, value), threshold(field, value)
            parts.append(text(x, y + 23, value, 13, colour, anchor))
    parts += [line(0, 68 + row * number, width, 68 + row * number) for number in range(len(records))]
    return "".join(parts)


def nice_step(span, count):
    size = span / count
    power = 10 ** math.floor(math.log10(size))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= size)


def colour_of(panel, name, place):
    for override in panel["fieldConfig"]["overrides"]:
        if override["matcher"] == {"id": "byName", "options": name}:
            for change in override["properties"]:
                if change["id"] == "color":
                    return COLOURS[change["value"]["fixedColor"]]
    return COLOURS[PALETTE[place % len(PALETTE)]]


def scale(field, highest, lowest):
    """The values at which lines are, and where a value is between 0 and 1."""
    if field["custom"].get("scaleDistribution", {}).get("type") == "log":
        first, last = math.floor(math.log10(lowest)), math.ceil(math.log10(highest))
        return [10.0**power for power in range(first, last + 1)], lambda value: (math.log10(value) - first) / (last - first)
    highest = field.get("max", highest)
    step = nice_step(highest, 4)
    count = math.ceil(highest / step - 1e-9)
    return [step * number for number in range(count + 1)], lambda value: value / step / count


def timeseries(panel, prometheus, width, height):
    field = panel["fieldConfig"]["defaults"]
    custom = field["custom"]
    series = []
    for target in panel["targets"]:
        for result in prometheus.ask(target):
            points = [(at, float(value)) for at, value in result["values"] if value != "NaN"]
            series.append((legend(target, result["metric"]), points))
    series = [(name, points) for name, points in series if points]
    if len(series) > len(PALETTE):
        raise SystemExit(f"{panel['title']}: no colour for so many series")

    base, bands = {}, []
    for _, points in series:
        bands.append([(at, base.get(at, 0), base.get(at, 0) + value) for at, value in points])
        if custom.get("stacking", {}).get("mode") == "normal":
            base.update((at, above) for at, _, above in bands[-1])
    values = [above for band in bands for *_, above in band]
    ticks, part_of = scale(field, max(values, default=1) or 1, min(values, default=0))
    labels = [write(field, tick) for tick in ticks]

    # The plot has what axis and legend leave.
    left, right, top = 20 + max(map(len, labels)) * 11 * CHARACTER, width - 14, 46
    parts, x, lines = [], 12, 1
    places = []
    for name, _ in series:
        need = 30 + len(name) * 12 * CHARACTER
        if x > 12 and x + need > width:
            x, lines = 12, lines + 1
        places.append((x, lines))
        x += need
    bottom = height - 34 - LEGEND_ROW * lines
    for place, ((name, _), (x, number)) in enumerate(zip(series, places)):
        y = bottom + 26 + LEGEND_ROW * number
        parts.append(box(x, y - 6, 14, 4, colour_of(panel, name, place), radius=1))
        parts.append(text(x + 20, y, name, 12))

    def at_x(at):
        return left + (at - prometheus.start) / (prometheus.end - prometheus.start) * (right - left)

    def at_y(value):
        return bottom - part_of(value) * (bottom - top)

    for tick, label in zip(ticks, labels):
        parts.append(line(left, at_y(tick), right, at_y(tick)))
        parts.append(text(left - 8, at_y(tick) + 4, label, 11, FAINT, "end"))
    first = math.ceil(prometheus.start / TICK_SECONDS) * TICK_SECONDS
    for at in range(first, prometheus.end, TICK_SECONDS):
        parts.append(line(at_x(at), top, at_x(at), bottom))
        if left + 16 < at_x(at) < right - 16:
            parts.append(text(at_x(at), bottom + 17, time.strftime("%H:%M", time.gmtime(at)), 11, FAINT, "middle"))
    for place, ((name, _), band) in enumerate(zip(series, bands)):
        parts.append(curve(band, colour_of(panel, name, place), custom, prometheus.step, at_x, at_y))
    return "".join(parts)


def curve(band, colour, custom, step, at_x, at_y):
    opacity = custom.get("fillOpacity", 0) / 100
    if custom.get("drawStyle") == "bars":
        bar = (at_x(step) - at_x(0)) * 0.8
        bars = "".join(
            f"M{at_x(at) - bar / 2:.1f} {at_y(below):.1f}V{at_y(above):.1f}h{bar:.1f}V{at_y(below):.1f}"
            for at, below, above in band
        )
        return f'<path d="{bars}" fill="{colour}" fill-opacity="{opacity}" stroke="{colour}" stroke-width=".6"/>'
    # A time without a value is a gap.
    breaks = [0, *(place + 1 for place, (a, b) in enumerate(pairwise(band)) if b[0] - a[0] > 1.5 * step), len(band)]
    parts = []
    for first, last in pairwise(breaks):
        part = band[first:last]
        if len(part) == 1:
            (at, _, above), = part
            parts.append(f'<circle cx="{at_x(at):.1f}" cy="{at_y(above):.1f}" r="1.8" fill="{colour}"/>')
            continue
        upper = "L".join(f"{at_x(at):.1f} {at_y(above):.1f}" for at, _, above in part)
        if opacity:
            lower = "L".join(f"{at_x(at):.1f} {at_y(below):.1f}" for at, below, _ in reversed(part))
            parts.append(f'<path d="M{upper}L{lower}Z" fill="{colour}" fill-opacity="{opacity}"/>')
        width = custom.get("lineWidth", 1)
        parts.append(f'<path d="M{upper}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-linejoin="round"/>')
    return "".join(parts)


# --- The whole ---

KINDS = {"stat": stat, "table": table, "timeseries": timeseries}


def header(dashboard, prometheus):
    parts = [text(MARGIN + 4, 36, dashboard["title"], 18, TEXT, weight=500)]
    x = MARGIN + 24 + len(dashboard["title"]) * 18 * CHARACTER
    for variable in dashboard["templating"]["list"]:
        value = variable["current"]["text"]
        label, chosen = (len(word) * 12 * CHARACTER + 18 for word in (variable["label"], value))
        parts.append(box(x, 17, label, 28, PANEL, LINE, 2) + text(x + 9, 35, variable["label"], 12, FAINT))
        parts.append(box(x + label, 17, chosen, 28, PAGE, LINE, 2) + text(x + label + 9, 35, value, 12))
        x += label + chosen + 12
    start, end = (time.gmtime(at) for at in (prometheus.start, prometheus.end))
    when = f"{time.strftime('%Y-%m-%d %H:%M', start)} to {time.strftime('%H:%M', end)} UTC"
    width = len(when) * 12 * CHARACTER + 18
    parts.append(box(WIDTH - MARGIN - width, 17, width, 28, PANEL, LINE, 2))
    parts.append(text(WIDTH - MARGIN - width / 2, 35, when, 12, TEXT, "middle"))
    return "".join(parts)


def draw(url, end, seconds, scrape_seconds):
    dashboard = json.loads(DASHBOARD.read_text())
    prometheus = Prometheus(url, int(end) // scrape_seconds * scrape_seconds, seconds, scrape_seconds)
    parts, lowest = [header(dashboard, prometheus)], 0
    for panel in dashboard["panels"]:
        grid = panel["gridPos"]
        x, y = MARGIN + grid["x"] * COLUMN, TOP + grid["y"] * (ROW + GAP)
        width, height = grid["w"] * COLUMN - GAP, grid["h"] * (ROW + GAP) - GAP
        lowest = max(lowest, y + height)
        inside = KINDS[panel["type"]](panel, prometheus, width, height)
        # With its queries, for a test that the picture is of this dashboard.
        queries = escape("\n".join(target["expr"] for target in panel["targets"]), quote=False)
        parts.append(
            f'<g transform="translate({x:.1f} {y:.1f})"><desc>{queries}</desc>{box(0, 0, width, height, PANEL, LINE)}'
            f"{text(12, 24, panel['title'], 14, TEXT, weight=500)}{inside}</g>"
        )
    height = lowest + MARGIN
    body = "\n".join(parts)
    (HERE / "dashboard.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}"'
        f' font-family="{FONTS}" role="img" aria-label="Grafana dashboard {escape(dashboard["title"])}">\n'
        f"{box(0, 0, WIDTH, height, PAGE, radius=6)}\n{body}\n</svg>\n"
    )


if __name__ == "__main__":
    draw(sys.argv[1], *map(int, sys.argv[2:]))
