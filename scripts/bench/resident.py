"""Prints the resident bytes that a definition adds to a process that serves it. Runs in eland's environment."""

import re
import sys
from pathlib import Path

import torch

from graphs import inputs

TOKENS = 128


def resident():
    return int(re.search(r"^VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE).group(1)) * 1024


def main(path):
    torch.set_num_threads(1)
    before = resident()
    module = torch.jit.load(path).eval()
    with torch.inference_mode():
        for _ in range(3):
            module(*inputs(module, TOKENS))
    print(resident() - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
