#!/usr/bin/env python3
"""Builds a Python wheel from the release archive of this platform. Run by `make wheel` after `make dist`.

    scripts/wheel.py [FOLDER]     default: target/dist

The wheel contains the files of the archive in the package rust_eland, with rust-eland and eland_import_hub_model as commands. The
package needs no other Python package, and replaces itself by the program. An archive always gives the same wheel.
"""

import base64
import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "rust_eland"
PROGRAM = "rust-eland"
COMMANDS = (PROGRAM, "eland_import_hub_model")
MAIN = '''"""Runs the program rust-eland. The commands of this package and `python -m rust_eland` start here."""

import os
import sys
from pathlib import Path

PROGRAM = Path(__file__).resolve().parent / "rust-eland"


def run(name: str) -> None:
    """Replaces this process by the program, which behaves as the command `name`."""
    os.execv(PROGRAM, [name, *sys.argv[1:]])


def rust_eland() -> None:
    run("rust-eland")


def eland_import_hub_model() -> None:
    run("eland_import_hub_model")


if __name__ == "__main__":
    rust_eland()
'''


def glibc(binaries: list) -> tuple:
    """Returns the newest version of glibc that a binary needs."""
    needed = {(2, 17)}
    for binary in binaries:
        text = subprocess.check_output(["readelf", "--wide", "--version-info", str(binary)], text=True)
        needed |= {(int(major), int(minor)) for major, minor in re.findall(r"Name: GLIBC_(\d+)\.(\d+)", text)}
    return max(needed)


def platform_tag(host: str, folder: Path) -> str:
    machine = host.split("-")[0]
    if host.endswith("apple-darwin"):  # untried
        return f"macosx_11_0_{machine.replace('aarch64', 'arm64')}"
    major, minor = glibc([folder / PROGRAM, *(folder / "lib").iterdir()])
    return f"manylinux_{major}_{minor}_{machine}"


def metadata(version: str) -> str:
    fields = {
        "Metadata-Version": "2.1",
        "Name": PROGRAM,
        "Version": version,
        "Summary": re.search(r'^description = "(.+)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1],
        "License": "Apache-2.0",
        "Requires-Python": ">=3.8",
        "Description-Content-Type": "text/markdown",
    }
    return "".join(f"{name}: {value}\n" for name, value in fields.items()) + "\n" + (ROOT / "README.md").read_text()


def wheel(out: Path) -> Path:
    archives = sorted(out.glob(f"{PROGRAM}-*.tar.gz"), key=lambda path: path.stat().st_mtime)
    if not archives:
        sys.exit(f"error: {out}/{PROGRAM}-*.tar.gz does not exist; run make dist")
    version, host = re.fullmatch(rf"{PROGRAM}-([^-]+)-(.+)\.tar\.gz", archives[-1].name).groups()
    with tempfile.TemporaryDirectory(dir=out, prefix=".part-") as scratch:
        with tarfile.open(archives[-1]) as tar:
            when = datetime.fromtimestamp(tar.getmembers()[0].mtime, timezone.utc).timetuple()[:6]
            tar.extractall(scratch)
        (folder,) = Path(scratch).iterdir()
        tag = f"py3-none-{platform_tag(host, folder)}"
        information = f"{PACKAGE}-{version}.dist-info"
        # The program has one name here: the commands pass the name that it is started with.
        files = {path: path.read_bytes for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()}
        files = {f"{PACKAGE}/{path.relative_to(folder)}": (read, path.stat().st_mode & 0o777) for path, read in files.items()}
        texts = {
            f"{PACKAGE}/__init__.py": '"""The program rust-eland, which imports models into Elasticsearch."""\n',
            f"{PACKAGE}/__main__.py": MAIN,
            f"{information}/METADATA": metadata(version),
            f"{information}/WHEEL": f"Wheel-Version: 1.0\nGenerator: scripts/wheel.py\nRoot-Is-Purelib: false\nTag: {tag}\n",
            f"{information}/entry_points.txt": "[console_scripts]\n"
            + "".join(f"{name} = {PACKAGE}.__main__:{name.replace('-', '_')}\n" for name in COMMANDS),
        }
        files |= {name: (text.encode, 0o644) for name, text in texts.items()}
        record = f"{information}/RECORD"
        lines = []
        part = Path(scratch) / "wheel"
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:

            def add(name: str, content: bytes, mode: int) -> None:
                entry = zipfile.ZipInfo(name, when)
                entry.external_attr = (0o100000 | mode) << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, content)

            for name, (read, mode) in files.items():
                content = read()
                digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
                lines.append(f"{name},sha256={digest},{len(content)}\n")
                add(name, content, mode)
            add(record, "".join([*lines, f"{record},,\n"]).encode(), 0o644)
        target = out / f"{PACKAGE}-{version}-{tag}.whl"
        part.rename(target)
    return target


def main() -> int:
    target = wheel(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "target/dist")
    print(f"{target}: {target.stat().st_size / 1e6:.0f} MB", file=sys.stderr)
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
