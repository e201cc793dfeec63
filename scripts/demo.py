#!/usr/bin/env python3
"""Imports a model and uses it, on one machine. `make demo` builds the programs and runs this script.

Starts a stand-in for Elasticsearch on the loopback interface, imports sentence-transformers/all-MiniLM-L6-v2 with
`rust-eland import`, and sends five sentences to the _infer call. Two pairs of sentences are related: each sentence must be
the closest to its partner.

    scripts/demo.py [--release] [--model PATH] [COMMAND ...]

COMMAND replaces `target/debug/rust-eland import`. PATH is the model's path as seen by COMMAND (see scripts/image).
"""

import argparse
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODEL_ID = "all-minilm-l6-v2"
SENTENCES = [
    "A man is playing the guitar on stage.",
    "Someone performs a song with a guitar for an audience.",
    "The central bank raised its interest rates again.",
    "Borrowing became more expensive after the rate decision.",
    "Whales hold their breath for more than an hour.",
]
PARTNER = {0: 1, 1: 0, 2: 3, 3: 2}  # the last sentence has no partner


class Failure(Exception):
    pass


def target_folder() -> Path:
    """Returns cargo's target directory, which can be configured."""
    command = [os.environ.get("CARGO", "cargo"), "metadata", "--no-deps", "--format-version", "1"]
    return Path(json.loads(subprocess.check_output(command, cwd=ROOT))["target_directory"])


def start_standin(program: Path, folder: Path):
    """Starts the stand-in and returns its process and URL. Its output goes to a file because a pipe could fill up."""
    log = folder / "standin.log"
    data = folder / "data"
    data.mkdir()
    with log.open("w") as output:
        command = [str(program), "--port", "0", "--data", str(data)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        match = re.search(r"^listening on (http://\S+)$", log.read_text(), re.MULTILINE)
        if match:
            return process, match.group(1)
        if process.poll() is not None:
            break
        time.sleep(0.05)
    stop(process)
    raise Failure(f"the stand-in did not start:\n{log.read_text()}")


def stop(process) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def embed(url: str, sentence: str):
    body = json.dumps({"docs": [{"text_field": sentence}]}).encode()
    # The first inference compiles the graph, which can exceed the default of ten seconds on a busy machine.
    request = urllib.request.Request(f"{url}/_ml/trained_models/{MODEL_ID}/_infer?timeout=60s", body, {"Content-Type": "application/json"})
    # No proxy, because the stand-in uses the loopback interface.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as response:
            return json.load(response)["inference_results"][0]["predicted_value"]
    except urllib.error.HTTPError as error:
        raise Failure(f"_infer returned {error.code}: {error.read().decode(errors='replace')}") from None


def cosine(a, b) -> float:
    return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def show(table, closest) -> None:
    width = max(map(len, SENTENCES))
    count = range(len(SENTENCES))
    print(f"\n{'cosine similarity':{width + 2}}  " + "  ".join(f"{number + 1:5}" for number in count) + "   closest")
    for i in count:
        cells = "  ".join("    –" if i == j else f"{table[i][j]:5.2f}" for j in count)
        verdict = f"{closest[i] + 1} " + ("✓" if PARTNER[i] == closest[i] else "✗") if i in PARTNER else "–"
        print(f"{i + 1} {SENTENCES[i]:{width}}  {cells}   {verdict}")
    print()


def demo(profile: str, model: str, command: list) -> None:
    programs = target_folder() / profile
    if not model:  # `make demo` has downloaded it
        model = subprocess.check_output([sys.executable, str(ROOT / "scripts/fetch.py"), "minilm"], text=True).strip()
    command = command or [str(programs / "rust-eland"), "import"]
    with tempfile.TemporaryDirectory(prefix="rust-eland-demo-") as folder:
        standin, url = start_standin(programs / "standin", Path(folder))
        try:
            print(f"Step 2 of 3: import all-MiniLM-L6-v2 (90 MB), which takes seconds. The stand-in for Elasticsearch is {url}.", flush=True)
            command = command + ["--url", url, "--hub-model-id", model, "--task-type", "text_embedding"]
            command += ["--es-model-id", MODEL_ID, "--start"]
            print("$ " + " ".join(command), flush=True)
            done = subprocess.run(command, env={**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"})
            if done.returncode:
                raise Failure(f"the import failed with exit code {done.returncode}")
            print("Step 3 of 3: send five sentences to the model.", flush=True)
            vectors = [embed(url, sentence) for sentence in SENTENCES]
        finally:
            stop(standin)
    table = [[cosine(a, b) for b in vectors] for a in vectors]
    closest = [max((j for j in range(len(row)) if j != i), key=row.__getitem__) for i, row in enumerate(table)]
    show(table, closest)
    if any(closest[i] != partner for i, partner in PARTNER.items()):
        raise Failure("related sentences are not closest to each other")
    print("Related sentences are closest to each other. The imported model works.")


def main() -> int:
    parser = argparse.ArgumentParser(description="Import MiniLM into a stand-in for Elasticsearch and compare five sentences.")
    parser.add_argument("--model", metavar="PATH", default="", help="path of the model as seen by the command")
    parser.add_argument("--release", action="store_const", const="release", default="debug", dest="profile", help="use the programs of target/release")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="command to run instead of target/debug/rust-eland import")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwind, so that the stand-in is stopped
    sys.stdout.reconfigure(errors="replace")  # a terminal without UTF-8
    try:
        demo(arguments.profile, arguments.model, arguments.command)
        return 0
    except (Failure, OSError, KeyError, ValueError, subprocess.CalledProcessError) as error:
        print(f"demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
