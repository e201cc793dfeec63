"""The results of a benchmark as one HTML page with bars, without scripts."""

import html
import statistics
from pathlib import Path

STYLE = (Path(__file__).resolve().parents[2] / "src" / "cli" / "page.css").read_text()
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
ROW, LABELS, WIDTH = 26, 320, 400


def bars(times):
    """Horizontal bars of seconds by name."""
    longest = max(times.values())
    lines = [f'<svg role="img" viewBox="0 0 {LABELS + WIDTH + 80} {ROW * len(times)}" width="{LABELS + WIDTH + 80}">']
    for at, (name, seconds) in enumerate(times.items()):
        y, length = ROW * at, WIDTH * seconds / longest
        lines.append(f'<text x="0" y="{y + 17}">{html.escape(name)}</text><rect class="data" x="{LABELS}" y="{y + 5}" width="{length:.1f}" '
                     f'height="16"/><text x="{LABELS + length + 6:.1f}" y="{y + 17}">{seconds:.1f} s</text>')
    return "\n".join([*lines, "</svg>"])


def table(lines):
    header, _, *rows = [[html.escape(cell.strip()) for cell in line.strip().strip("|").split("|")] for line in lines]
    cells = lambda kind, row: "<tr>" + "".join(f"<{kind}>{cell}</{kind}>" for cell in row) + "</tr>"
    return "\n".join(["<table>", cells("th", header), *(cells("td", row) for row in rows), "</table>"])


def section(markdown):
    """Headings, tables and paragraphs."""
    parts = []
    for block in markdown.split("\n\n"):
        if block.startswith("#"):
            level = len(block) - len(block.lstrip("#"))
            parts.append(f"<h{level}>{html.escape(block[level:].strip())}</h{level}>")
        elif block.startswith("|"):
            parts.append(table(block.split("\n")))
        else:
            parts.append(f"<p>{html.escape(block)}</p>")
    return "\n".join(parts)


def page(sections, imports):
    """The page of the sections of bench.md, with the wall times of imports as bars."""
    times = {}
    for model, contenders in imports.items():
        for name, runs in contenders.items():
            if isinstance(runs, list) and runs:
                times[f"{model}, {name.replace('ours', 'rust-eland')}"] = statistics.median(run["wall"] for run in runs)
    first, *others = [section(markdown) for markdown in sections]
    plot = ["<h2>Wall time of imports</h2>", bars(times)] if times else []
    return "\n".join(['<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
                      f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">', '<meta name="viewport" content="width=device-width">',
                      f"<title>Benchmark of rust-eland</title>\n<style>\n{STYLE}</style>\n</head>\n<body>", first, *plot, *others,
                      "</body>\n</html>\n"])
