#!/usr/bin/env python3
"""Builds a release archive for the platform of this machine. Run by `make dist`.

    scripts/dist.py [FOLDER]     default: target/dist

Builds the program so that it finds libtorch in the folder `lib` next to it. The archive contains the program, the required
libraries of libtorch, the licences of all components, and an SBOM (CycloneDX JSON). A commit always gives the same archive.
scripts/dist-test tests the archive on a bare system.
"""

import gzip
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import uuid
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = "rust-eland"
PEER = "eland_import_hub_model"
MACOS = platform.system() == "Darwin"
LICENCES = re.compile(r"(LICEN[CS]E|COPYING|NOTICE|COPYRIGHT|UNLICENSE)", re.IGNORECASE)


class Failure(Exception):
    """An error that is printed as one message without a stack trace."""


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def run(*command, **options) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def commit_time() -> int:
    """Returns the time of all files in the archive, in seconds since 1970."""
    if os.environ.get("SOURCE_DATE_EPOCH"):
        return int(os.environ["SOURCE_DATE_EPOCH"])
    return int(run("git", "log", "-1", "--format=%ct"))


# ------------------------------------------------------------------------------------------ program and libraries


def build(cargo: str) -> Path:
    beside = "@loader_path/lib" if MACOS else "$ORIGIN/lib"
    command = [cargo, "build", "--release", "--locked", "--package", PROGRAM]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "RUST_ELAND_RUN_PATH": beside})
    target = json.loads(run(cargo, "metadata", "--no-deps", "--format-version", "1"))["target_directory"]
    return Path(target) / "release" / PROGRAM


def dependencies_of(binary: Path) -> list:
    """Returns the names of the shared libraries that a program or library depends on."""
    if MACOS:
        lines = run("otool", "-L", str(binary)).splitlines()[1:]
        return [Path(line.split(" (")[0].strip()).name for line in lines]
    return re.findall(r"\(NEEDED\).*\[(.+)\]", run("readelf", "--dynamic", str(binary)))


def libraries(libtorch: Path) -> list:
    """Returns the libraries of libtorch that the program loads, and those that they depend on. The system provides all others."""
    first = libtorch / "lib" / ("libtorch_cpu.dylib" if MACOS else "libtorch_cpu.so")
    found, todo = {first.name: first}, [first]
    while todo:
        for name in dependencies_of(todo.pop()):
            path = libtorch / "lib" / name
            if name not in found and path.exists():
                found[name] = path
                todo.append(path)
    return [found[name] for name in sorted(found)]


def strip(path: Path) -> None:
    # On macOS a stripped file needs a new signature, and the linker already strips most symbols.
    if not MACOS:
        run("strip", "--strip-unneeded", str(path))


# ------------------------------------------------------------------------------------------------------- contents


def crates(cargo: str) -> list:
    """Returns the packages compiled into the program, the program first. Build and test dependencies are excluded."""
    host = re.search(r"^host: (\S+)$", run("rustc", "-vV"), re.MULTILINE).group(1)
    metadata = json.loads(run(cargo, "metadata", "--locked", "--format-version", "1", "--filter-platform", host))
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = next(id for id, package in packages.items() if package["name"] == PROGRAM and package["source"] is None)
    seen, todo = {}, [root]
    while todo:
        id = todo.pop()
        if id not in seen:
            normal = [dep["pkg"] for dep in nodes[id]["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])]
            seen[id] = {**packages[id], "needs": normal}
            todo += normal
    return sorted(seen.values(), key=lambda package: (package["id"] != root, package["name"], package["version"]))


def checksums() -> dict:
    """Returns the SHA-256 of every crate archive in Cargo.lock."""
    blocks = (ROOT / "Cargo.lock").read_text().split("[[package]]")
    fields = [dict(re.findall(r'^(name|version|checksum) = "(.+)"$', block, re.MULTILINE)) for block in blocks]
    return {(field["name"], field["version"]): field["checksum"] for field in fields if "checksum" in field}


def purl(package: dict) -> str:
    return f"pkg:cargo/{package['name']}@{package['version']}"


def licence(package: dict) -> str:
    return re.sub(r"\s*/\s*", " OR ", package["license"] or "NOASSERTION")  # older crates separate alternatives with a slash


def crate_licences(packages: list, out: Path) -> None:
    """Writes one file with the licences of all crates. Crates with the same text share one copy."""
    texts, silent = {}, []
    for package in packages:
        folder = Path(package["manifest_path"]).parent
        if package["source"] is None:
            continue
        files = sorted(path for path in folder.iterdir() if path.is_file() and LICENCES.match(path.name))
        if not files:
            if "MPL" in licence(package):
                raise Failure(f"{package['name']}: the MPL requires the licence text, and the crate contains none")
            silent.append(package)
        for path in files:
            text = path.read_text(errors="replace").strip()
            texts.setdefault(" ".join(text.split()), (text, []))[1].append(f"{package['name']} {package['version']} ({path.name})")
    with out.open("w") as file:
        file.write("Rust crates in rust-eland and their licences.\n\n")
        for package in packages:
            # The MPL requires the address of the source.
            source = f", source: {package['repository']}" if "MPL" in licence(package) else ""
            file.write(f"{package['name']} {package['version']}: {licence(package)}{source}\n")
        if silent:
            file.write("\nThese crates contain no licence file; their licence is listed above:\n")
            for package in silent:
                file.write(f"{package['name']} {package['version']}, {', '.join(package['authors']) or package['repository']}\n")
        for text, owners in texts.values():
            file.write(f"\n{'=' * 100}\n" + "\n".join(owners) + f"\n{'=' * 100}\n\n{text}\n")


def libtorch_packages(libtorch: Path) -> list:
    """Returns name and version of the Python packages that libtorch was extracted from, based on the names of the licence files."""
    names = {re.match(r"(.+)-([\d.]+)-", path.name).groups() for path in (libtorch / "licenses").glob("*-*-*")}
    return sorted((name.replace("_", "-"), version) for name, version in names)


def archive_stem(version: str, host: str) -> str:
    """Returns the name of an archive without `.tar.gz`, which is also the name of the folder in it."""
    return f"{PROGRAM}-{version}-{host}"


def check_binstall(package: dict, host: str) -> None:
    """Checks that [package.metadata.binstall] in Cargo.toml describes the archive, so that `cargo binstall` finds the program in it."""
    settings = package["metadata"]["binstall"]
    values = {"name": package["name"], "version": package["version"], "target": host, "bin": PROGRAM}

    def rendered(template: str) -> str:
        return re.sub(r"{ ([a-z]+) }", lambda found: values.get(found[1], found[0]), template)

    stem = archive_stem(package["version"], host)
    expected = {
        "pkg-url": f"{{ repo }}/releases/download/v{package['version']}/{stem}.tar.gz",
        "bin-dir": f"{stem}/{PROGRAM}",
        "pkg-fmt": "tgz",
    }
    for key, value in expected.items():
        if rendered(settings[key]) != value:
            raise Failure(f"{key} in [package.metadata.binstall] gives {rendered(settings[key])}, but must give {value}")


def bill_of_materials(packages: list, libtorch: Path, carried: list, version: str, when: int) -> dict:
    sums = checksums()
    components = []
    for package in packages[1:]:
        component = {"type": "library", "bom-ref": purl(package), "name": package["name"], "version": package["version"]}
        component |= {"purl": purl(package), "licenses": [{"expression": licence(package)}]}
        if (package["name"], package["version"]) in sums:
            component["hashes"] = [{"alg": "SHA-256", "content": sums[package["name"], package["version"]]}]
        components.append(component)
    wheels = [f"pkg:pypi/{name}@{number}" for name, number in libtorch_packages(libtorch)]
    for (name, number), ref in zip(libtorch_packages(libtorch), wheels):
        components.append({"type": "library", "bom-ref": ref, "name": name, "version": number, "purl": ref})
    for path in carried:
        digest = [{"alg": "SHA-256", "content": sha256(path)}]
        components.append({"type": "file", "bom-ref": f"lib/{path.name}", "name": f"lib/{path.name}", "hashes": digest})
    by_id = {package["id"]: package for package in packages}
    graph = [{"ref": purl(package), "dependsOn": sorted(purl(by_id[id]) for id in package["needs"])} for package in packages]
    graph[0]["dependsOn"] += wheels + [f"lib/{path.name}" for path in carried]
    root = {"type": "application", "bom-ref": purl(packages[0]), "name": PROGRAM, "version": version}
    root |= {"purl": purl(packages[0]), "licenses": [{"expression": licence(packages[0])}]}
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([components, graph], sort_keys=True))
    time = datetime.fromtimestamp(when, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    bom = {"bomFormat": "CycloneDX", "specVersion": "1.5", "serialNumber": f"urn:uuid:{serial}", "version": 1}
    return bom | {"metadata": {"timestamp": time, "component": root}, "components": components, "dependencies": graph}


# ------------------------------------------------------------------------------------------------------ the archive


def pack(folder: Path, archive: Path, when: int) -> None:
    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        entry.mtime = when
        entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
        return entry

    with archive.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, when) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(folder, folder.name, filter=plain)  # sorted by name


def dist(out: Path) -> None:
    cargo = os.environ.get("CARGO", "cargo")
    when = commit_time()
    libtorch = Path(run(sys.executable, "scripts/fetch.py", "libtorch").strip())
    program = build(cargo)
    packages = crates(cargo)
    version = packages[0]["version"]
    host = re.search(r"^host: (\S+)$", run("rustc", "-vV"), re.MULTILINE).group(1)
    check_binstall(packages[0], host)
    name = archive_stem(version, host)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".part-") as scratch:
        folder = Path(scratch) / name
        for part in ("lib", "licenses"):
            (folder / part).mkdir(parents=True)
        needed = libraries(libtorch)
        carried = [folder / "lib" / path.name for path in needed]
        for source, target in zip([program, *needed], [folder / PROGRAM, *carried]):
            shutil.copy(source, target)
            strip(target)
        (folder / PEER).symlink_to(PROGRAM)
        for document in ("LICENSE", "README.md", "CHANGELOG.md"):
            if (ROOT / document).exists():
                shutil.copy(ROOT / document, folder)
        for path in (libtorch / "licenses").iterdir():
            shutil.copy(path, folder / "licenses")
        crate_licences(packages, folder / "licenses" / "rust-crates.txt")
        bom = json.dumps(bill_of_materials(packages, libtorch, carried, version, when), indent=1) + "\n"
        (folder / "sbom.cdx.json").write_text(bom)
        (out / f"{name}.cdx.json").write_text(bom)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        say(f"{name}: {size >> 20} MB with " + ", ".join(path.name for path in carried))
        part = Path(scratch) / f"{name}.tar.gz"
        pack(folder, part, when)
        archive = out / part.name
        part.rename(archive)
    sums = "".join(f"{sha256(path)}  {path.name}\n" for path in (archive, out / f"{name}.cdx.json"))
    (out / f"{name}.sha256").write_text(sums)
    say(f"{archive.stat().st_size >> 20} MB packed, {len(packages)} crates")
    print(archive)


def main() -> int:
    try:
        dist(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "target" / "dist")
        return 0
    except subprocess.CalledProcessError as error:
        say(f"error: `{' '.join(map(str, error.cmd))}` failed")
    except (Failure, OSError) as error:
        say(f"error: {error}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
