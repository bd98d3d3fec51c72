#!/usr/bin/env python3
"""Makes an SVG of an asciicast that moves by CSS alone, so that it does so in an <img>, too.

    docs/pictures/cast.py terminal.cast terminal.svg [SECOND]

pyte is the terminal. Each row of the screen is a strip on which all that it ever holds stands side by side, and an
animation moves it by whole widths. What does not animate, or is asked not to, shows the screen as it is at SECOND, by
default at the end.
"""

import json
import re
import sys
from html import escape
from itertools import groupby

import pyte

# A change is shown no later than this after it has happened: many keys are one step.
STEP_SECONDS = 0.06
FONT, LINE = 14, 20  # pixels
CELL = FONT * 0.602  # of Menlo and of DejaVu Sans Mono; other fonts are held to it
PAD, BAR = 16, 34
FOREGROUND, BACKGROUND, FRAME = "#d1d7e0", "#10141b", "#30363d"
COLOURS = {
    "default": FOREGROUND, "black": "#484f58", "red": "#ff7b72", "green": "#4cc25a", "brown": "#e3b341",
    "blue": "#79c0ff", "magenta": "#d2a8ff", "cyan": "#56d4dd", "white": "#f0f6fc", "brightblack": "#8b949e",
}  # fmt: skip
FONTS = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace"


class Screen(pyte.Screen):
    def select_graphic_rendition(self, *attributes, **options):
        # pyte has no faint text: it is grey here.
        super().select_graphic_rendition(*((90,) if attributes == (2,) else attributes), **options)


def screens(path):
    """The terminal's width and height, each screen with its time, and the end."""
    with open(path) as file:
        header, *events = map(json.loads, file)
    screen = Screen(header["width"], header["height"])
    stream = pyte.Stream(screen)
    seen = [(0, rows(screen))]
    for at, _, text in events:
        stream.feed(text)
        # What comes within a step is one change.
        step = round(at / STEP_SECONDS) * STEP_SECONDS
        if seen[-1][0] == step:
            seen.pop()
        seen.append((step, rows(screen)))
    return header, seen


def rows(screen):
    return [row(screen, line) for line in range(screen.lines)]


def row(screen, line):
    """The SVG of a row: runs of cells that look alike, each held to its columns whatever the font."""
    cells = [screen.buffer[line][column] for column in range(screen.columns)]
    parts = []
    if line == screen.cursor.y and not screen.cursor.hidden:
        parts.append(f'<rect class="cursor" x="{screen.cursor.x * CELL:.1f}" y="2" width="{CELL:.1f}" height="17"/>')
    column = 0
    for (colour, bold), run in groupby(cells, key=lambda cell: (cell.fg, cell.bold)):
        text = "".join(cell.data for cell in run)
        style = f' class="{colour}"' if colour != "default" else ""
        style += ' font-weight="700"' if bold else ""
        # A run ends where two spaces are: not every renderer keeps them.
        for words in re.finditer(r"\S+( \S+)*", text):
            x, width = (column + words.start()) * CELL, len(words[0]) * CELL
            written = escape(words[0], quote=False)
            parts.append(f'<text x="{x:.1f}" y="15" textLength="{width:.1f}"{style}>{written}</text>')
        column += len(text)
    return "".join(parts)


def svg(header, seen, poster):
    width, height = header["width"] * CELL, header["height"] * LINE
    total_width, total_height = width + 2 * PAD, height + BAR + PAD
    duration = seen[-1][0]
    # Room between the places, for a font that is wider than its cells.
    stride = width + 100
    css, strips, contents = [], [], {}
    for line in range(header["height"]):
        places, steps, now, still = {}, [], None, 0
        for at, all_rows in seen:
            place = places.setdefault(all_rows[line], len(places))
            if place != now:
                steps.append(f"{at / duration:.3%}{{transform:translateX({-place * stride:.0f}px)}}")
                now = place
            if at <= poster:
                still = place
        uses = [
            f'<use href="#{contents.setdefault(content, f"c{len(contents)}")}" x="{place * stride:.0f}"/>'
            for content, place in places.items()
            if content
        ]
        if uses:
            css.append(f"#r{line}{{transform:translateX({-still * stride:.0f}px)}}")
        if uses and len(steps) > 1:
            css.append(f"@keyframes r{line}{{{''.join(steps)}}}#r{line}{{animation:r{line} {duration:.2f}s step-end infinite}}")
        if uses:
            strips.append(f'<g transform="translate(0 {line * LINE})"><g id="r{line}">{"".join(uses)}</g></g>')
    colours = "".join(f".{name}{{fill:{colour}}}" for name, colour in COLOURS.items() if name != "default")
    dots = "".join(
        f'<circle cx="{PAD + 6 + 20 * place}" cy="18" r="6" fill="{colour}"/>'
        for place, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    defined = "".join(f'<g id="{name}">{content}</g>' for content, name in contents.items())
    title = escape(header["title"])
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total_width:.0f} {total_height:.0f}" width="{total_width:.0f}" height="{total_height:.0f}" role="img" aria-label="{title}">
<style>text{{fill:{FOREGROUND}}}{colours}.cursor{{fill:#8b949e;opacity:.55}}
{chr(10).join(css)}
@media (prefers-reduced-motion:reduce){{g{{animation:none!important}}}}</style>
<defs>{defined}</defs>
<rect x=".5" y=".5" width="{total_width - 1:.0f}" height="{total_height - 1:.0f}" rx="9" fill="{BACKGROUND}" stroke="{FRAME}"/>
{dots}<text x="50%" y="22" text-anchor="middle" font-family="system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif" font-size="13" style="fill:#8b949e">{title}</text>
<svg x="{PAD}" y="{BAR}" width="{width + PAD / 2:.0f}" height="{height}" font-family="{FONTS}" font-size="{FONT}">
{chr(10).join(strips)}
</svg>
</svg>
"""


def main():
    source, target, *second = sys.argv[1:]
    header, seen = screens(source)
    poster = float(second[0]) if second else seen[-1][0]
    with open(target, "w") as file:
        file.write(svg(header, seen, poster))


if __name__ == "__main__":
    main()
