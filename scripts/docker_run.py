#!/usr/bin/env python3
"""Imitates `docker run` without a container engine, with the options used in the documentation. Used by scripts/image.

    scripts/docker_run.py FOLDER run [OPTIONS] IMAGE [COMMAND ...]

FOLDER contains root (the image's files), config.json (its OCI configuration), hosts (/etc/hosts) and variables (additional
variables in the format of `docker run --env-file`). The container uses its own mount namespace, with a read-only root if
requested. The image's volume is a new folder, as for an anonymous volume of docker. The container uses the network of the host.
"""

import json
import os
import pty
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# $1: root; $2: rw or ro; $3: hosts file; then groups of FROM TO rw|ro until --; then the command.
INSIDE = """
root=$1 access=$2 hosts=$3; shift 3
mount --bind "$root" "$root"
while [ "$1" != -- ]; do
    [ -d "$root$2" ] || mkdir -p "$root$2"
    mount --bind "$1" "$root$2"
    mount -o "remount,bind,$3" "$root$2"
    shift 3
done
shift
mount --bind "$hosts" "$root/etc/hosts"
mount -o "remount,bind,$access" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
exec "$@"
"""


def bind(text: str) -> tuple:
    """Parses `-v FROM:TO[:ro]` or `--mount type=bind,source=FROM,destination=TO[,readonly]` into FROM, TO and access."""
    if text.startswith("type="):
        fields = dict((field.split("=", 1) + [""])[:2] for field in text.split(","))
        if fields.pop("type") != "bind":
            sys.exit(f"unsupported: --mount {text}")
        return fields["source"], fields["destination"], "ro" if "readonly" in fields else "rw"
    source, target, access = re.fullmatch(r"([^:]+):([^:]+)(?::(ro))?", text).groups()
    return source, target, access or "rw"


def main() -> int:
    folder = Path(sys.argv[1])
    config = json.loads((folder / "config.json").read_text())
    words = iter(sys.argv[3:])
    binds, user, access, terminal = [], config["User"], "rw", False
    variables = config["Env"] + (folder / "variables").read_text().splitlines()
    if sys.argv[2] != "run":
        sys.exit("unsupported: only docker run is implemented")
    for word in words:
        if word in ("-it", "-ti"):
            terminal = True
        elif word == "--read-only":
            access = "ro"
        elif word == "--network" and next(words) == "host" or word == "--rm":
            pass
        elif word == "--user":
            user = next(words)
        elif word in ("-e", "--env"):
            variables.append(next(words))
        elif word in ("-v", "--volume", "--mount"):
            binds.append(bind(next(words)))
        elif word.startswith("-"):
            sys.exit(f"unsupported: docker run {word}")
        else:
            break  # the image
    command = list(words) or config["Cmd"]
    with tempfile.TemporaryDirectory(dir=folder, prefix="volume-") as volume:
        for place in config.get("Volumes") or {}:
            os.chmod(volume, 0o1777)
            binds.insert(0, (volume, place, "rw"))
        inside = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", INSIDE, "sh", str(folder / "root"), access]
        inside += [str(folder / "hosts")] + [word for triple in binds for word in triple] + ["--"]
        inside += ["chroot", f"--userspec={user}", str(folder / "root"), "env", "-i", *variables]
        inside += ["sh", "-c", 'cd "$0" && exec "$@"', config["WorkingDir"], *command]
        status = pty.spawn(inside) if terminal else subprocess.run(inside).returncode
        return os.waitstatus_to_exitcode(status) if terminal else status


if __name__ == "__main__":
    sys.exit(main())
