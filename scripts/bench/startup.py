"""Measures how long a command takes until it does something: until its first request, until it opens a file of the model, or until it ends.
The time of /bin/true, which starts and ends a process, is subtracted."""

import contextlib
import ctypes
import os
import select
import socket
import statistics
import struct
import subprocess
import threading
import time

IN_OPEN, IN_ISDIR = 0x20, 0x40000000
COMPLETIONS, HELP = ["completions", "bash"], ["import", "--help"]


class Requests:
    """A server that records when a connection brings its first bytes, and closes it."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.moments = []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            with contextlib.suppress(OSError):
                connection, _ = self.socket.accept()
                with connection:
                    connection.recv(1)
                    self.moments.append(time.perf_counter())


class Opens:
    """Waits until a file in a folder is opened (inotify)."""

    def __init__(self, folder):
        libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = libc.inotify_init1(os.O_CLOEXEC)
        if libc.inotify_add_watch(self.descriptor, os.fsencode(folder), IN_OPEN) < 0:
            raise OSError(ctypes.get_errno(), f"cannot watch {folder}")

    def wait(self, seconds):
        end = time.perf_counter() + seconds
        while select.select([self.descriptor], [], [], max(0, end - time.perf_counter()))[0]:
            moment, data = time.perf_counter(), os.read(self.descriptor, 1 << 16)
            while data:
                _, mask, _, length = struct.unpack_from("iIII", data)
                if not mask & IN_ISDIR:
                    return moment
                data = data[16 + length:]
        return None

    def close(self):
        os.close(self.descriptor)


def start(command):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ES_", "HF_"))} | {"HF_HUB_OFFLINE": "1"}
    discard = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return time.perf_counter(), subprocess.Popen([str(word) for word in command], env=environment, **discard)


def until_end(command):
    begun, process = start(command)
    process.wait()
    return time.perf_counter() - begun


def until_request(command, requests):
    requests.moments.clear()
    begun, process = start(command)
    while not requests.moments and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    process.wait()
    return requests.moments[0] - begun if requests.moments else None


def until_file(command, folder):
    opens = Opens(folder)
    begun, process = start(command)
    moment = opens.wait(30)
    process.kill()
    process.wait()
    opens.close()
    return moment - begun if moment else None


def measure(program, minilm, tree, runs):
    """Returns the seconds of each command, as a list, without those of /bin/true."""
    requests = Requests()
    at = ["--url", requests.url]
    ended = {"--version": ["--version"], "--help": HELP, "completions": COMPLETIONS}
    requested = {
        "list": ["list", *at], "status": ["status", *at, "m"], "start": ["start", *at, "m"], "stop": ["stop", *at, "m"],
        "delete": ["delete", *at, "m"], "infer (remote)": ["infer", *at, "--es-model-id", "m", "a text"],
        "import --tree-model": ["import", *at, "--tree-model", tree, "--es-model-id", "m"],
    }
    read = {"inspect": ["inspect", "--hub-model-id", minilm, "--task-type", "text_embedding"]}
    measures = {name: (lambda words: lambda: until_end([program, *words]))(words) for name, words in ended.items()}
    measures |= {name: (lambda words: lambda: until_request([program, *words], requests))(words) for name, words in requested.items()}
    measures |= {name: (lambda words: lambda: until_file([program, *words], minilm))(words) for name, words in read.items()}
    found = {name: [] for name in measures}
    until_end([program, "--version"])  # reads the program into the page cache
    for _ in range(runs):
        for name, run in measures.items():
            nothing = statistics.median(until_end(["/bin/true"]) for _ in range(3))
            taken = run()
            if taken is not None:
                found[name].append(max(0, taken - nothing))
    return found


def rows(found):
    """The rows of the table: milliseconds, median and range."""
    shown = lambda times: f"{1000 * statistics.median(times):.0f} ({1000 * min(times):.0f}–{1000 * max(times):.0f})" if times else "failed"
    return [[name, shown(times)] for name, times in found.items()]
