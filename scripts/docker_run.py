#!/usr/bin/env python3
"""`docker run` without an engine, for scripts/image: the options that documentation uses, on a machine that has no docker.

    scripts/docker_run.py FOLDER run [OPTIONS] IMAGE [COMMAND ...]

FOLDER holds root (the image's files), config.json (its configuration, as OCI writes it), hosts (/etc/hosts) and variables (further
variables, what `docker run --env-file` takes). The root is seen in a mount namespace of its own, read-only if that is asked for; the
image's volume is a new folder, as one without a name is in docker. The network is this machine's.
"""

import json
import os
import pty
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# $1 the root, $2 how it is mounted, $3 the file of hosts; then FROM TO rw|ro three by three until --; then the command.
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
    """FROM, TO and access of `-v FROM:TO[:ro]` or `--mount type=bind,source=FROM,destination=TO[,readonly]`."""
    if text.startswith("type="):
        fields = dict((field.split("=", 1) + [""])[:2] for field in text.split(","))
        if fields.pop("type") != "bind":
            sys.exit(f"not known here: --mount {text}")
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
        sys.exit("only docker run is known here")
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
            sys.exit(f"not known here: docker run {word}")
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
