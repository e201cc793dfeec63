#!/usr/bin/env python3
"""Write down the caches that releases of Python's huggingface_hub create from the stand-in's repositories.

    cargo build -p hub
    python tests/hub/layout.py ENVIRONMENTS [HUB]

ENVIRONMENTS is a folder for virtual environments, one for each release. HUB is the stand-in (default: target/debug/hub). The listings
are written to tests/hub/layouts. There is no Xet service here, so a function of this script takes the place of hf_xet's transfer;
huggingface_hub itself lays out the files. tests/suite/from_hub/layout.rs reads the caches that the listings describe.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LAYOUTS = ROOT / "tests/hub/layouts"
FIXTURES = {"org/st-mean": "bert/st-mean", "org/base": "bert/base"}
# Release, and whether its large files are in Xet. The first listing is the layout that rust-eland writes.
CASES = [("0.36.2", False), ("0.36.2", True), ("1.20.1", True), ("1.32.0", True), ("2.4.0", True)]
# The files that rust-eland selects.
NEEDED = [
    "1_Pooling/config.json",
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
]


def main() -> None:
    environments = Path(sys.argv[1])
    hub = Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "target/debug/hub"
    LAYOUTS.mkdir(exist_ok=True)
    for release, xet in CASES:
        python = environment(environments / f"hub-{release}", release)
        with tempfile.TemporaryDirectory() as home:
            with_hub(hub, home, xet, [str(python), __file__, "--fill"])
            name = f"{release}-xet.txt" if xet else f"{release}.txt"
            (LAYOUTS / name).write_text("\n".join(listing(Path(home) / "hub")) + "\n")


def environment(folder: Path, release: str) -> Path:
    python = folder / "bin/python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        packages = [f"huggingface_hub=={release}", "hf_xet"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def with_hub(hub: Path, home: str, xet: bool, command: list) -> None:
    """Runs a command while the stand-in serves the fixtures."""
    arguments = [str(hub)] + ["--xet"] * xet
    for name, fixture in FIXTURES.items():
        arguments += ["--repository", f"{name}={ROOT}/tests/fixtures/{fixture}/model"]
    server = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        endpoint = server.stdout.readline().split()[-1]
        variables = {"HF_ENDPOINT": endpoint, "HF_HOME": home, "NO_PROXY": "127.0.0.1"}
        variables |= {} if xet else {"HF_HUB_DISABLE_XET": "1"}
        subprocess.run(command, check=True, env=os.environ | variables)
    finally:
        server.stdin.close()
        server.wait()


def fill() -> None:
    """Downloads the repositories into the cache. Runs in the environment of a release."""
    from huggingface_hub import file_download, hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError

    contents = {}
    for fixture in FIXTURES.values():
        for path in (ROOT / "tests/fixtures" / fixture / "model").rglob("*.safetensors"):
            content = path.read_bytes()
            contents[hashlib.sha256(b"xet" + content).hexdigest()] = content

    def transfer(*, incomplete_path, xet_file_data, **_):
        Path(incomplete_path).write_bytes(contents[xet_file_data.file_hash])

    file_download.xet_get = transfer
    for name in FIXTURES:
        snapshot_download(name, allow_patterns=NEEDED)
        # transformers and sentence-transformers look for files that may not exist.
        for optional in ["modules.json", "tokenizer_config.json"]:
            try:
                hf_hub_download(name, optional)
            except EntryNotFoundError:
                pass


def listing(folder: Path) -> list:
    """One line for each path: kind, path, and target, size or text."""
    lines = []
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            lines.append(f"link {name} {os.readlink(path)}")
        elif path.is_dir():
            lines.append(f"folder {name}")
        elif is_text(path):
            lines.append(f"text {name} {json.dumps(path.read_text())}")
        else:
            lines.append(f"file {name} {path.stat().st_size}")
    return lines


def is_text(path: Path) -> bool:
    """Whether huggingface_hub itself has written the content."""
    names = ["CACHEDIR.TAG", ".huggingface-shared-blobs"]
    return path.name in names or path.suffix == ".refs" or path.parent.name in ["refs", "trees"]


if __name__ == "__main__":
    fill() if sys.argv[1:] == ["--fill"] else main()
