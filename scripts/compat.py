#!/usr/bin/env python3
"""Loads exported archives in the PyTorch versions used by Elasticsearch. `make compat` builds the program and runs this script.

    scripts/compat.py [--program PATH] [--only TEXT]... [VERSION ...]

For each libtorch version that Elasticsearch ships, exports every fixture and task (`--target-version`), creates a temporary
environment with the same PyTorch version, loads the archives there and compares their outputs with the references. Prints a
Markdown table with the largest difference per architecture, relative to the largest output value if that is above 1. Fails if a
difference is above 1e-4. Archives of some fixtures are also exported with each scheme of `--quantize`; these may differ by 0.2.

Each environment is deleted before the next one is created. The largest needs 10 GB in the temporary folder (TMPDIR); the
downloads add up to 7 GB. Needs python3.11, the last Python version for which all of these wheels exist. Not part of `make test`.
"""

import argparse
import concurrent.futures
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple, Tuple

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests/fixtures"
TOLERANCE = 1e-4

# Fixtures that are also quantized, and the schemes.
QUANTIZED = ("bert/st-mean", "bert/text-classification", "bert/masked-lm")
SCHEMES = ("all", "embeddings", "half-embeddings", "eland")
QUANTIZED_TOLERANCE = 0.2


class Release(NamedTuple):
    """A PyTorch version and the Elasticsearch versions with its libtorch. Later targets serve models that the first one cannot."""

    torch: str
    targets: Tuple[str, ...]
    # PyTorch version whose CUDA libraries this one loads. The wheels on the package index are CUDA builds.
    cuda: str = "2.7.1"
    # Additional libraries that take precedence over the CUDA libraries.
    extra: Tuple[str, ...] = ()


CUDNN_8 = ("nvidia-cudnn-cu12==8.9.2.26",)
RELEASES = [
    Release("2.7.1", ("9.2.0",)),
    Release("2.5.1", ("8.18.0",)),
    Release("2.3.1", ("8.16.0",), extra=CUDNN_8),
    Release("2.1.2", ("8.13.0",), extra=CUDNN_8),
    Release("1.13.1", ("8.7.0", "8.12.0"), cuda="1.13.1"),
]
# Requirements of `import torch` besides the CUDA libraries.
PYTHON_PACKAGES = ("numpy<2", "typing_extensions", "filelock", "sympy<1.14", "mpmath<1.4", "networkx", "jinja2", "MarkupSafe", "fsspec")


class Failure(Exception):
    pass


def say(message):
    print(message, file=sys.stderr, flush=True)


def run(command, **options):
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode:
        raise Failure(f"{' '.join(map(str, command))}\n{done.stdout[-3000:]}")
    return done.stdout


# ------------------------------------------------------------------------------------------------------- exports


def cases(only):
    """Yields every fixture with every task in its references, and the scheme of the quantization or None."""
    for reference in sorted(FIXTURES.glob("*/*/reference.json")):
        fixture = reference.parent
        name = str(fixture.relative_to(FIXTURES))
        if any(text in name for text in only):
            # `refused` contains models that no reader accepts.
            if name.split("/")[0] != "refused":
                for task in json.loads(reference.read_text())["tasks"]:
                    yield name, task, None
                    # The table in float16 cannot also be the weight of a decoder.
                    schemes = SCHEMES if name in QUANTIZED else ()
                    has_decoder = task in ("fill_mask", "text_expansion")
                    yield from ((name, task, scheme) for scheme in schemes if scheme != "half-embeddings" or not has_decoder)


def export(program, fixture, task, scheme, targets, into):
    """Returns (folder of the export, None), or (None, required version) if no target can serve the model."""
    folder = into / fixture.replace("/", "~") / f"{task}-{scheme}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RUST_LOG": "error"}
    for target in targets:
        command = [program, "export", "--hub-model-id", FIXTURES / fixture / "model", "--task-type", task]
        command += ["--es-model-id", "m", "--output", folder, "--target-version", target]
        # The fixtures' texts have the same ids in Elasticsearch, even if those of other scripts would not.
        command += ["--allow-inexact-tokenizer"]
        command += [f"--quantize={scheme}"] if scheme else []
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=environment)
        if done.returncode == 0:
            return folder, None
        needed = re.search(r"which needs (\S+) for", done.stderr)
        if not needed:
            raise Failure(f"{fixture} {task} for {target}: {done.stderr}")
    return None, needed.group(1)


def export_all(program, release, only, into):
    wanted = list(cases(only))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        exports = list(pool.map(lambda case: export(program, *case, release.targets, into), wanted))
    jobs, unserved = [], {}
    for (fixture, task, scheme), (folder, needed) in zip(wanted, exports):
        if folder:
            name = f"{fixture.split('/')[0]}, `--quantize={scheme}`/{fixture}" if scheme else fixture
            jobs.append({"fixture": str(FIXTURES / fixture), "name": name, "task": task, "folder": str(folder)})
        else:
            unserved.setdefault(fixture.split("/")[0], needed)
    return jobs, unserved


# -------------------------------------------------------------------------------------------------- environments


def pip(python, *arguments, scratch):
    run([python, "-m", "pip", "install", "--no-cache-dir", "--no-deps", "--disable-pip-version-check", "-q", *arguments],
        env={**os.environ, "TMPDIR": str(scratch)})


def nvidia_requirements(python):
    """Returns the CUDA libraries listed in the metadata of the installed torch."""
    script = "import importlib.metadata as m; print('\\n'.join(m.requires('torch') or ()))"
    lines = run([python, "-c", script]).splitlines()
    return [re.split(r"[ ;]", line)[0] + re.sub(r"^[^=;]*(==[^;) ]+)?.*", r"\1", line) if "(" in line else line.split(";")[0].strip()
            for line in lines if line.startswith("nvidia-")]


class Environments:
    """Creates one environment at a time and keeps the CUDA libraries that several share."""

    def __init__(self, scratch):
        self.scratch = scratch
        self.cuda = None

    def torch(self, version, folder):
        python = folder / "bin/python"
        run(["python3.11", "-m", "venv", folder])
        pip(python, f"torch=={version}", *PYTHON_PACKAGES, scratch=self.scratch)
        return python

    def libraries(self, release, python):
        """Returns the folders of shared libraries for LD_LIBRARY_PATH."""
        if self.cuda != release.cuda:
            shutil.rmtree(self.scratch / "cuda", ignore_errors=True)
            shutil.rmtree(self.scratch / "extra", ignore_errors=True)
            if release.cuda == release.torch:
                wanted = nvidia_requirements(python)
            else:
                wanted = nvidia_requirements(self.torch(release.cuda, self.scratch / "other"))
                shutil.rmtree(self.scratch / "other")
            say(f"  libraries: {' '.join(wanted)}")
            pip(python, "--target", self.scratch / "cuda", *wanted, scratch=self.scratch)
            self.cuda = release.cuda
        extra = self.scratch / "extra"
        if release.extra and not extra.exists():
            pip(python, "--target", extra, *release.extra, scratch=self.scratch)
        folders = [extra] if release.extra else []
        folders.append(self.scratch / "cuda")
        return [str(path) for folder in folders for pattern in ("nvidia/*/lib", "*/lib") for path in sorted(folder.glob(pattern))]

    def check(self, release, jobs):
        """Runs scripts/compat_check.py with this PyTorch version and returns its results."""
        folder = self.scratch / f"torch-{release.torch}"
        try:
            python = self.torch(release.torch, folder)
            path = os.pathsep.join(self.libraries(release, python))
            (self.scratch / "jobs.json").write_text(json.dumps(jobs))
            output = run([python, ROOT / "scripts/compat_check.py", self.scratch / "jobs.json", self.scratch / "found.json"],
                         env={**os.environ, "LD_LIBRARY_PATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""})
            say(f"  {output.strip()}")
            return json.loads((self.scratch / "found.json").read_text())
        finally:
            shutil.rmtree(folder, ignore_errors=True)


# --------------------------------------------------------------------------------------------------------- table


def table(columns):
    """Formats `columns`: for each release and architecture the largest difference, or the required version as text."""
    architectures = sorted({name for found in columns.values() for name in found})
    releases = sorted(columns, key=lambda release: [int(part) for part in release.torch.split(".")])
    head = [f"PyTorch {release.torch} (for {release.targets[0].rsplit('.', 1)[0]})" for release in releases]
    lines = ["| architecture | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for name in architectures:
        cells = (columns[release].get(name, "") for release in releases)
        lines.append(f"| {name} | " + " | ".join(cell if isinstance(cell, str) else f"{cell:.0e}" for cell in cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--program", type=Path, default=ROOT / "target/debug/rust-eland")
    parser.add_argument("--only", action="append", metavar="TEXT", help="only fixtures whose name contains this text; repeatable")
    parser.add_argument("versions", nargs="*", help="PyTorch versions; default: all five")
    arguments = parser.parse_args()
    known = [release.torch for release in RELEASES]
    for version in arguments.versions:
        if version not in known:
            parser.error(f"unknown version {version}; choose from {', '.join(known)}")
    if not shutil.which("python3.11"):
        raise Failure("python3.11 with the module venv is required")
    columns, failures = {}, []
    with tempfile.TemporaryDirectory(prefix="rust-eland-compat-") as scratch:
        environments = Environments(Path(scratch))
        for release in RELEASES:
            if arguments.versions and release.torch not in arguments.versions:
                continue
            say(f"PyTorch {release.torch}: exporting for Elasticsearch {', '.join(release.targets)}")
            exports = Path(scratch) / "exports"
            jobs, unserved = export_all(arguments.program, release, arguments.only or [""], exports)
            say(f"  {len(jobs)} archives")
            column = {name: f"needs {needed}" for name, needed in unserved.items()}
            for found in environments.check(release, jobs):
                of = f"PyTorch {release.torch}: {found['name']} {found['task']}"
                if found["error"]:
                    failures.append(f"{of}: {found['error']}")
                    continue
                if not found["difference"] <= (QUANTIZED_TOLERANCE if "--quantize" in found["name"] else TOLERANCE):
                    failures.append(f"{of}: {found['difference']}")
                name = found["name"].split("/")[0]
                worst = column.get(name)
                column[name] = max(found["difference"], worst if isinstance(worst, float) else 0.0)
            columns[release] = column
            shutil.rmtree(exports)
    print(table(columns))
    if failures:
        raise Failure("\n".join(failures))


if __name__ == "__main__":
    # Unwind on signals, so that gigabytes of temporary files are deleted.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(130))
    try:
        main()
    except Failure as error:
        sys.exit(f"error: {error}")
