#!/usr/bin/env python3
"""Write down the cache that Python's huggingface_hub makes of the stand-in's repositories (layout.txt beside this file).

    cargo build -p hub
    python tests/hub/layout.py > tests/hub/layout.txt     # with huggingface_hub 0.36 installed

tests/suite/from_hub/layout.rs compares it with the cache that rust-eland makes, and reads it back.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FIXTURES = {"org/st-mean": "bert/st-mean", "org/base": "bert/base"}
# What rust-eland takes of them.
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
    command = [str(ROOT / "target/debug/hub")]
    for name, fixture in FIXTURES.items():
        command += ["--repository", f"{name}={ROOT}/tests/fixtures/{fixture}/model"]
    with tempfile.TemporaryDirectory() as home:
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            endpoint = server.stdout.readline().split()[-1]
            os.environ.update(HF_ENDPOINT=endpoint, HF_HOME=home, HF_HUB_DISABLE_XET="1", NO_PROXY="127.0.0.1")
            fill()
        finally:
            server.stdin.close()
            server.wait()
        print("\n".join(listing(Path(home) / "hub")))


def fill() -> None:
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError

    for name in FIXTURES:
        snapshot_download(name, allow_patterns=NEEDED, tqdm_class=None)
        # As transformers and sentence-transformers look for what may be there.
        for optional in ["modules.json", "tokenizer_config.json"]:
            try:
                hf_hub_download(name, optional)
            except EntryNotFoundError:
                pass


def listing(folder: Path) -> list:
    lines = []
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            lines.append(f"link {name} {os.readlink(path)}")
        elif path.is_dir():
            lines.append(f"folder {name}")
        elif path.parent.name == "refs":
            lines.append(f"ref {name} {path.read_text()}")
        else:
            lines.append(f"file {name} {path.stat().st_size}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
