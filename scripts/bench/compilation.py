"""Measures the CPU time of `make demo` and of compiling the tests after it, each from a clean clone of a commit."""

import os
import resource
import shutil
import subprocess

COMMANDS = [["make", "demo"], ["cargo", "test", "--workspace", "--locked", "--no-run"]]


def used():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(root, commit, folder):
    """Returns the CPU seconds of all commands for one commit, or the command that failed as text."""
    clone = folder / f"clone-{commit}"
    subprocess.run(["git", "clone", "--quiet", root, clone], check=True)
    try:
        subprocess.run(["git", "checkout", "--quiet", commit], cwd=clone, check=True)
        subprocess.run(["make", "libtorch", "minilm"], cwd=clone, check=True, stdout=subprocess.DEVNULL)
        environment = {name: value for name, value in os.environ.items() if name not in ("CARGO_TARGET_DIR", "MAKEFLAGS", "MAKELEVEL")}
        before = used()
        for command in COMMANDS:
            if subprocess.run(command, cwd=clone, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
                return f"failed: {' '.join(command)}"
        return used() - before
    finally:
        shutil.rmtree(clone, ignore_errors=True)
