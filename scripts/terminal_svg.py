#!/usr/bin/env python3
"""Records a real import on a terminal as an animated SVG. Run by `make demo-svg`, which installs the package pyte.

    scripts/terminal_svg.py OUTPUT.svg [PROGRAMS]

PROGRAMS is a folder with rust-eland, standin and hub; the default is the folder `release` of cargo's target directory. The script starts
the stand-ins for Elasticsearch and the hub, runs the commands on a terminal, and writes what the terminal shows and when. A wait of more
than a second is shortened. The SVG contains neither a script nor a font. It follows the reader's light or dark colours, plays once, and
shows the last screen where animations are disabled.
"""

import fcntl
import html
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

import pyte

from demo import target_folder

ROOT = Path(__file__).resolve().parent.parent
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
ID = "minilm"
COMMANDS = [
    ["rust-eland", "import", "--url", "http://localhost:9200", "--hub-model-id", MODEL, "--es-model-id", ID, "--start"],
    ["rust-eland", "infer", "--url", "http://localhost:9200", "--es-model-id", ID, "I forgot my password", "How do I log in?", "Whales sing"],
]
COLUMNS, ROWS = 120, 34
WIDTH, HEIGHT, TOP, LEFT = 7.2, 17, 14, 16  # of a character, and the margins
TYPING = 0.12  # seconds per typed word
IDLE = 1.0  # longest time without a change; a longer wait is shortened
STEP = 0.08  # shortest time between two screens
LIGHT = {"page": "#ffffff", "text": "#24292f", "red": "#cf222e", "green": "#116329", "brown": "#7d4e00", "blue": "#0969da", "magenta": "#8250df", "cyan": "#1b7c83", "dim": "#57606a"}
DARK = {"page": "#161b22", "text": "#e6edf3", "red": "#ff7b72", "green": "#7ee787", "brown": "#e3b341", "blue": "#79c0ff", "magenta": "#d2a8ff", "cyan": "#76e3ea", "dim": "#8b949e"}


def serve(command: list, log: Path) -> tuple:
    """Starts a server and returns its process and address."""
    process = subprocess.Popen(command, stdout=log.open("w"), stderr=subprocess.STDOUT, stdin=subprocess.PIPE)
    for _ in range(600):
        match = re.search(r"^listening on (http://\S+)$", log.read_text(), re.MULTILINE)
        if match:
            return process, match[1]
        if process.poll() is not None:
            break
        time.sleep(0.1)
    process.kill()
    sys.exit(f"error: {command[0]} did not start: {log.read_text()}")


class Recorder:
    """The screens of a terminal, each with the time when it appears."""

    def __init__(self):
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self.stream = pyte.ByteStream(self.screen)
        self.frames, self.now = [], 0.0

    def feed(self, data: bytes, seconds: float) -> None:
        """Writes bytes to the terminal after a time."""
        self.now += min(seconds, IDLE)
        self.stream.feed(data)
        rows = tuple(self.row(number) for number in range(ROWS))
        if self.frames and self.now - self.frames[-1][0] < STEP:
            self.frames[-1] = (self.frames[-1][0], rows)
        elif not self.frames or self.frames[-1][1] != rows:
            self.frames.append((self.now, rows))

    def row(self, number: int) -> tuple:
        """Returns the runs of equal style in a row: column, text, colour, bold."""
        runs = []
        for column in range(COLUMNS):
            cell = self.screen.buffer[number][column]
            style = (cell.fg, cell.bold)
            if runs and runs[-1][2:] == style:
                runs[-1] = (runs[-1][0], runs[-1][1] + cell.data, *style)
            else:
                runs.append((column, cell.data, *style))
        return tuple((column, text.rstrip(), *style) for column, text, *style in runs if text.strip())

    def type(self, words: list) -> None:
        self.feed(b"\x1b[32m$\x1b[0m", 0.6)
        for word in words:
            self.feed((f' "{word}"' if " " in word else f" {word}").encode(), TYPING)
        self.feed(b"\r\n", 0.3)

    def run(self, command: list, environment: dict) -> None:
        parent, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        process = subprocess.Popen(command, stdin=child, stdout=child, stderr=child, env=environment, start_new_session=True)
        os.close(child)
        last = time.monotonic()
        while True:
            if not select.select([parent], [], [], 120)[0]:
                process.kill()
                sys.exit("error: the command does not end")
            try:
                data = os.read(parent, 65536)
            except OSError:  # the other side is closed
                break
            if not data:
                break
            now = time.monotonic()
            self.feed(data, now - last)
            last = now
        if process.wait():
            sys.exit("\n".join([*self.screen.display, f"error: {' '.join(command)} exited with {process.returncode}"]))


def colours(theme: dict) -> str:
    return ".page{fill:%s}text{fill:%s}" % (theme["page"], theme["text"]) + "".join(
        f".{name}{{fill:{value}}}" for name, value in theme.items() if name not in ("page", "text")
    )


def svg(recorder: Recorder) -> str:
    """Places the screens in a row, of which the animation shows one at a time. Each distinct row of text is written once."""
    frames = recorder.frames
    used = max(number for _, rows in frames for number, row in enumerate(rows) if row) + 1
    width, height = LEFT * 2 + COLUMNS * WIDTH, TOP * 2 + used * HEIGHT
    names, definitions, strip = {}, [], []
    for index, (_, rows) in enumerate(frames):
        for number, row in enumerate(rows):
            if not row:
                continue
            if row not in names:
                names[row] = f"r{len(names)}"
                spans = []
                for column, text, colour, bold in row:
                    style = " ".join(([colour] if colour in LIGHT else []) + (["bold"] if bold else []))
                    spans.append(
                        f'<text x="{LEFT + column * WIDTH:.1f}" textLength="{len(text) * WIDTH:.1f}"'
                        + (f' class="{style}"' if style else "")
                        + f">{html.escape(text)}</text>"
                    )
                definitions.append(f'<g id="{names[row]}">{"".join(spans)}</g>')
            strip.append(f'<use href="#{names[row]}" x="{index * width:.1f}" y="{TOP + (number + 1) * HEIGHT - 5}"/>')
    total = frames[-1][0] + 1
    steps = "".join(f"{at / total * 100:.2f}%{{transform:translateX({-index * width:.1f}px)}}" for index, (at, _) in enumerate(frames))
    last = -(len(frames) - 1) * width
    title = html.escape("rust-eland imports all-MiniLM-L6-v2 into Elasticsearch, starts it, and compares three sentences")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" height="{height}" role="img" xml:space="preserve">\n'
        f"<title>{title}</title>\n<style>\n"
        "text{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:pre}.bold{font-weight:bold}\n"
        f"{colours(LIGHT)}\n@media(prefers-color-scheme:dark){{{colours(DARK)}}}\n"
        f"@keyframes play{{{steps}100%{{transform:translateX({last:.1f}px)}}}}\n"
        f"@media(prefers-reduced-motion:no-preference){{.strip{{animation:play {total:.1f}s steps(1,end) 1 both}}}}\n"
        f'</style>\n<defs>\n{"".join(item + chr(10) for item in definitions)}</defs>\n'
        f'<rect class="page" width="100%" height="100%" rx="8" stroke="#8884"/>\n'
        f'<g class="strip" transform="translate({last:.1f})">\n{"".join(item + chr(10) for item in strip)}</g>\n</svg>\n'
    )


def main() -> int:
    output = Path(sys.argv[1])
    programs = Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else target_folder() / "release"
    model = subprocess.check_output([sys.executable, str(ROOT / "scripts/fetch.py"), "minilm"], text=True).strip()
    with tempfile.TemporaryDirectory(prefix="rust-eland-terminal-") as name:
        folder = Path(name)
        (folder / "data").mkdir()
        servers = []
        try:
            servers.append(serve([str(programs / "standin"), "--port", "9200", "--data", str(folder / "data")], folder / "standin.log"))
            servers.append(serve([str(programs / "hub"), "--repository", f"{MODEL}={model}"], folder / "hub.log"))
            environment = {"PATH": os.environ["PATH"], "HOME": name, "TERM": "xterm-256color", "LANG": "C.UTF-8", "HF_ENDPOINT": servers[1][1]}
            # The time of a download from the stand-in for the hub would have no meaning.
            download = [str(programs / "rust-eland"), "download", "--hub-model-id", MODEL]
            subprocess.run(download, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            recorder = Recorder()
            for command in COMMANDS:
                recorder.type(command)
                recorder.run([str(programs / command[0]), *command[1:]], environment)
                recorder.feed(b"\r\n", 1)
        finally:
            for process, _ in servers:
                process.terminate()
                process.wait()
    output.write_text(svg(recorder))
    print(f"{output}: {output.stat().st_size // 1024} KiB, {len(recorder.frames)} screens in {recorder.now:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
