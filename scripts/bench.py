#!/usr/bin/env python3
"""Compares imports with rust-eland, with eland and with a floor. `make bench` builds the programs and runs this script; pass options
as BENCH="--models minilm,bert --runs 3".

Imports go to a stand-in for Elasticsearch on the loopback interface that accepts and discards parts, because client and server share
the processors of one machine. All files are in the page cache before the first run. The contenders take turns in alternating order.
The floor, tests/floor, hashes, encodes and uploads a file of the definition's size.

All figures are those of the process: time from its start to the last response of the cluster and to the first byte of the definition,
CPU time, peak resident memory (VmHWM), peak anonymous memory (RssAnon, sampled every 5 ms), bytes written (/proc/PID/io).
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent / "bench")]
import compilation  # noqa: E402
import page  # noqa: E402
import quantization  # noqa: E402
import report  # noqa: E402
import startup  # noqa: E402
from demo import Failure, stop, target_folder  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "scripts" / "bench"
TREE = ROOT / "tests" / "fixtures" / "trees" / "lightgbm-3.3.5-binary.txt"
# eland's extra `pytorch` does not pin torch; this is the version in Elasticsearch.
ELAND = ["eland[pytorch]==9.2.0", "torch==2.7.1", "transformers==4.57.6"]
TREES = ["eland[scikit-learn,xgboost]==9.2.0"]
IMPORTS = ["minilm", "static", "bert", "xlmr", "bart", "xlmr-large"]
LIMITED = ["xlmr-large", "xlmr-large-f16", "xlmr-large-bf16"]
# Connections of the floor: as many as rust-eland opens at most.
CONNECTIONS = 16
GRAPHS = ["minilm", "static", "bert", "xlmr", "bart", "mpnet", "deberta", "electra", "mobilebert", "distilbert", "roberta", "fill-mask",
          "expansion", "qa", "similarity", "pass-through"]
CONTENDERS = ["ours", "eland", "floor"]
FIGURES = {
    "wall": ("s", 2), "cpu": ("s", 2), "first_byte": ("s", 2), "peak_resident": ("MB", 0), "peak_anonymous": ("MB", 0),
    "written": ("MB", 0),
}


def say(text):
    print(text, file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------------------------- cluster


class StandIn:
    """A running stand-in and its log."""

    def __init__(self, program, folder, options):
        self.data = folder / "data"
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(parents=True)
        self.log = folder / "standin.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [program, "--data", self.data, "--log", *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.url = None
        for _ in range(200):
            if found := re.search(r"^listening on (http://\S+)$", self.log.read_text(), re.MULTILINE):
                self.url = found.group(1)
                return
            time.sleep(0.05)
        raise Failure(f"the stand-in did not start: {self.log.read_text()}")

    def events(self, since):
        """Yields (time in seconds, event) for every line after an offset of the log."""
        for line in self.log.read_bytes()[since:].decode().splitlines():
            if found := re.match(r"(\S+Z) +INFO [^:]+(?:::\w+)*: (.*)", line):
                moment = datetime.datetime.fromisoformat(found.group(1).replace("Z", "+00:00"))
                yield moment.timestamp(), found.group(2)

    def delete(self, model):
        request = urllib.request.Request(f"{self.url}/_ml/trained_models/{model}?force=true", method="DELETE")
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(request, timeout=30).read()

    def definition(self, model, into):
        """Joins the stored parts of a definition in the file `into`."""
        parts = sorted((self.data / "models" / model / "parts").iterdir(), key=lambda path: int(path.name))
        with into.open("wb") as whole:
            for part in parts:
                whole.write(part.read_bytes()[8:])
        return into


@contextlib.contextmanager
def cluster(bench, *options):
    standin = StandIn(bench.programs / "standin", bench.scratch, options)
    try:
        yield standin
    finally:
        stop(standin.process)


# ----------------------------------------------------------------------------------------------------------- single run


def figures_of(process, begun):
    """Samples the figures of a process until it ends, because the kernel discards them at the end."""
    status, io = Path(f"/proc/{process.pid}/status"), Path(f"/proc/{process.pid}/io")
    resident = anonymous = written = 0
    while True:
        with contextlib.suppress(OSError, ValueError):
            found = dict(re.findall(r"^(VmHWM|RssAnon):\s+(\d+) kB", status.read_text(), re.MULTILINE))
            resident = max(resident, int(found.get("VmHWM", 0)) * 1024)
            anonymous = max(anonymous, int(found.get("RssAnon", 0)) * 1024)
            written = max(written, int(re.search(r"^write_bytes: (\d+)", io.read_text(), re.MULTILINE).group(1)))
        done, state, usage = os.wait4(process.pid, os.WNOHANG)
        if done:
            process.returncode = os.waitstatus_to_exitcode(state)
            break
        time.sleep(0.005)
    return {"wall": time.time() - begun, "cpu": usage.ru_utime + usage.ru_stime, "peak_resident": resident,
            "peak_anonymous": anonymous, "written": written}


def run(bench, standin, command, prepare=None):
    """Runs a contender once. Returns its figures, or an error as text."""
    since = standin.log.stat().st_size
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ES_", "OMP_", "HF_"))}
    environment |= {"HF_HUB_OFFLINE": "1", "RUST_ELAND_STATE_DIR": str(bench.scratch / "state"), "PYTHONWARNINGS": "ignore"}
    with tempfile.TemporaryFile("w+") as output:
        begun = time.time()
        process = subprocess.Popen([str(word) for word in command], env=environment, stdin=subprocess.DEVNULL, stdout=output,
                                   stderr=output, preexec_fn=prepare)
        figures = figures_of(process, begun)
        output.seek(0)
        text = output.read()
    if process.returncode:
        lines = [line for line in text.strip().splitlines() if line.strip()]
        return f"exit {process.returncode}: {lines[-1][:300] if lines else 'no output'}"
    events = list(standin.events(since))
    answered = [moment for moment, what in events if " -> " in what]
    begins = [moment for moment, what in events if what.endswith(" begins")]
    figures["wall"] = max(answered, default=time.time()) - begun
    if begins:
        figures["first_byte"] = begins[0] - begun
    if timings := re.search(r'^\{"stages".*\}$', text, re.MULTILINE):
        figures["stages"] = json.loads(timings.group(0))["stages"]
    return figures


def command_of(bench, contender, model, url, id, definition=None):
    folder = bench.models / model
    task = (folder / "task").read_text()
    if contender == "ours":
        return [bench.programs / "rust-eland", "--timings=json", "import", "--url", url, "--hub-model-id", folder, "--task-type", task,
                "--es-model-id", id]
    if contender == "eland":
        return [bench.eland / "bin" / "eland_import_hub_model", "--url", url, "--hub-model-id", folder, "--task-type", task,
                "--es-model-id", id]
    return [bench.programs / "floor", definition, url, CONNECTIONS]


# ------------------------------------------------------------------------------------------------------------------- tables


def median(runs, figure):
    values = [run[figure] for run in runs if figure in run]
    return statistics.median(values) if values else None


def shown(value, figure):
    unit, digits = FIGURES[figure]
    return f"{value / 1e6 if unit == 'MB' else value:.{digits}f}"


def cell(runs, figure):
    """Formats the median, with minimum and maximum in brackets."""
    if isinstance(runs, str):
        return "failed" if figure == "wall" else ""
    values = sorted(run[figure] for run in runs if figure in run)
    if not values:
        return ""
    middle = shown(statistics.median(values), figure)
    return middle if len(values) == 1 else f"{middle} ({shown(values[0], figure)}–{shown(values[-1], figure)})"


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def import_table(results):
    header = ["model", "contender", *(f"{name.replace('_', ' ')}, {unit}" for name, (unit, _) in FIGURES.items())]
    rows = [[model, contender, *(cell(runs, figure) for figure in FIGURES)]
            for model, contenders in results.items() for contender, runs in contenders.items()]
    text = table(header, rows)
    for model, contenders in results.items():
        text += "".join(f"\n\n{contender} on {model}: {runs}" for contender, runs in contenders.items() if isinstance(runs, str))
    return text


def ratio_table(results):
    """Formats the ratios of eland to rust-eland, and of rust-eland to the floor."""
    def ratio(contenders, above, below, figure):
        if any(isinstance(contenders.get(who, ""), str) for who in (above, below)):
            return ""
        one, other = (median(contenders[who], figure) for who in (above, below))
        return f"{one / other:.2f}" if one and other else ""

    rows = [[model, ratio(c, "eland", "ours", "wall"), ratio(c, "eland", "ours", "cpu"), ratio(c, "eland", "ours", "peak_resident"),
             ratio(c, "ours", "floor", "wall")] for model, c in results.items()]
    return table(["model", "wall, eland / ours", "CPU, eland / ours", "peak resident, eland / ours", "wall, ours / floor"], rows)


def stage_table(results):
    stages, models = {}, []
    for model, contenders in results.items():
        runs = contenders.get("ours", "")
        if isinstance(runs, str):
            continue
        models.append(model)
        for one in runs:
            for stage in one.get("stages", []):
                stages.setdefault(stage["name"], {}).setdefault(model, []).append(stage["took"] or 0)
    rows = [[name, *(f"{statistics.median(of[model]):.2f}" if model in of else "" for model in models)] for name, of in stages.items()]
    return table(["seconds", *models], rows)


# ----------------------------------------------------------------------------------------------------------- benchmarks


def warm(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(1 << 24):
                    pass


def forget(folder):
    """Removes files from the page cache."""
    os.sync()
    for path in ([folder] if folder.is_file() else folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def bench_imports(bench, models, delay=0):
    options = ["--discard-parts", *(["--fault", f"part=slow-{delay}ms"] if delay else [])]
    results = {}
    with cluster(bench, *options) as standin:
        for model in models:
            warm(bench.models / model)
            definition = bench.scratch / "definition.pt"
            size = definition_size(bench, model)
            contenders = {name: [] for name in bench.contenders}
            for turn in range(bench.runs):
                if "floor" in contenders and turn == 0:
                    make_file(definition, size)
                for name in bench.contenders if turn % 2 == 0 else reversed(bench.contenders):
                    if isinstance(contenders[name], str):
                        continue
                    figures = run(bench, standin, command_of(bench, name, model, standin.url, "m", definition))
                    standin.delete("m")
                    if isinstance(figures, str):
                        say(f"{model}, {name}: {figures}")
                        contenders[name] = figures
                    else:
                        say(f"{model}, {name}: " + ", ".join(
                            f"{figure} {shown(figures[figure], figure)} {FIGURES[figure][0]}" for figure in FIGURES if figure in figures))
                        contenders[name].append(figures)
            results[model] = contenders
            definition.unlink(missing_ok=True)
    return results


def definition_size(bench, model):
    """Returns the approximate size of a definition: the size of the weights, which both contenders store."""
    return sum(path.stat().st_size for path in (bench.models / model).glob("*.safetensors"))


def make_file(path, size):
    block = os.urandom(1 << 20)
    with path.open("wb") as file:
        for at in range(0, size, len(block)):
            file.write(block[: size - at])
    os.sync()


def bench_limits(bench, model, limits):
    """Imports with a cold page cache and memory limits that include the page cache."""
    v2, v1 = Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/memory")
    if (v1 / "memory.limit_in_bytes").exists():
        parent, name = v1, "memory.limit_in_bytes"
    elif "memory" in (v2 / "cgroup.controllers").read_text().split() if (v2 / "cgroup.controllers").exists() else False:
        parent, name = v2, "memory.max"
    else:
        return {str(limit): "this machine has no cgroup with a memory controller" for limit in limits}
    results = {}
    with cluster(bench, "--discard-parts") as standin:
        for limit in limits:
            group = parent / f"rust-eland-bench-{os.getpid()}"
            try:
                group.mkdir()
                (group / name).write_text(str(limit << 20))
            except OSError as error:
                results[str(limit)] = f"could not create a cgroup: {error}"
                continue
            try:
                forget(bench.models / model)
                forget(bench.programs / "rust-eland")
                command = command_of(bench, "ours", model, standin.url, "m")
                figures = run(bench, standin, command, lambda: (group / "cgroup.procs").write_text(str(os.getpid())))
                standin.delete("m")
                results[str(limit)] = figures
                say(f"{model} in {limit} MB: {figures if isinstance(figures, str) else shown(figures['wall'], 'wall') + ' s'}")
            finally:
                group.rmdir()
    return results


def bench_trees(bench):
    """Imports a tree model of 1,000 trees: from JSON and UBJSON with rust-eland, from a live object with eland."""
    folder = bench.models / "trees"
    folder.mkdir(exist_ok=True)
    python = install(bench.eland.with_name("eland-trees"), TREES) / "bin" / "python"
    if not (folder / "big.ubj").exists():
        say("training 1,000 trees")
        subprocess.run([python, HERE / "trees.py", folder], check=True)
    results = {}
    with cluster(bench) as standin:
        ours = lambda name: [bench.programs / "rust-eland", "import", "--url", standin.url, "--tree-model", folder / name,
                             "--es-model-id", "m"]
        commands = {"rust-eland, JSON": ours("big.json"), "rust-eland, UBJSON": ours("big.ubj"),
                    "rust-eland, UBJSON, no self-check": [*ours("big.ubj"), "--no-verify"],
                    "eland": [python, HERE / "trees.py", folder, "--eland", standin.url, "m"]}
        for name, command in commands.items():
            runs = []
            for _ in range(bench.runs):
                figures = run(bench, standin, command)
                standin.delete("m")
                if isinstance(figures, str):
                    say(f"trees, {name}: {figures}")
                    runs = figures
                    break
                runs.append(figures)
            results[name] = runs
    return results


def tree_table(results):
    figures = ["wall", "cpu", "peak_resident"]
    rows = [[name, *([cell(runs, figure) for figure in figures] if isinstance(runs, list) else [runs, "", ""])]
            for name, runs in results.items()]
    return table(["import", *(f"{name.replace('_', ' ')}, {FIGURES[name][0]}" for name in figures)], rows)


def bench_graphs(bench, models):
    results = {}
    for model in models:
        task = (bench.models / model / "task").read_text()
        files, failure = {}, {}
        with cluster(bench) as standin:
            for name in ("ours", "eland"):
                if name not in bench.contenders:
                    continue
                figures = run(bench, standin, command_of(bench, name, model, standin.url, name))
                if isinstance(figures, str):
                    failure[name] = figures
                    say(f"{model}, {name}: {figures}")
                else:
                    files[name] = standin.definition(name, bench.scratch / f"{name}.pt")
        shutil.rmtree(bench.scratch / "data")
        if "ours" not in files:
            results[model] = failure.get("ours", "rust-eland was not selected")
            continue
        settings = json.dumps({"files": {name: str(path) for name, path in files.items()}, "seconds": bench.seconds})
        done = subprocess.run([bench.eland / "bin" / "python", HERE / "graphs.py", settings], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            results[model] = "measurement failed"
            continue
        results[model] = {"task": task, **json.loads(done.stdout)}
        if "eland" in failure:
            results[model]["failure"] = failure["eland"]
        say(f"{model}: " + "; ".join(f"{n} tokens {t.get('ratio', 0):.3f}" for n, t in results[model]["milliseconds"].items()))
        for path in files.values():
            path.unlink()
    return results


# ------------------------------------------------------------------------------------------------------------------ main


def install(venv, packages):
    """Installs packages in a virtual environment, if they are not there yet."""
    if not (venv / "bin" / "eland_import_hub_model").exists():
        say(f"installing {' '.join(packages)} in {venv}")
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin" / "pip", "install", "--no-cache-dir", "--quiet", *packages], check=True)
    return venv


def machine():
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = int(re.search(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text()).group(1)) // 1024
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout.strip()
    return f"{os.cpu_count()} cores ({cpu.group(1) if cpu else 'unknown'}), {memory} MB, Linux {platform.release()}, commit {commit}"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter)
    names = lambda text: [name for name in text.split(",") if name]
    parser.add_argument("--models", dest="models_", type=names, default=IMPORTS, help="models to import: " + ",".join(IMPORTS))
    parser.add_argument("--graphs", type=names, default=GRAPHS, help="models whose graphs are compared; may be empty: " + ",".join(GRAPHS))
    parser.add_argument("--quantized", type=names, default=["minilm", "bert"], help="models to quantize; may be empty")
    parser.add_argument("--delayed", type=names, default=["bert"], help="models to import into a cluster that delays each part")
    parser.add_argument("--delay", type=int, default=20, help="delay per part in milliseconds")
    parser.add_argument("--limited", type=names, default=LIMITED, help="models to import with memory limits; may be empty")
    parser.add_argument("--limits", type=lambda text: [int(n) for n in names(text)], default=[512, 256], help="memory limits in MiB")
    parser.add_argument("--compile", metavar="COMMIT", help="compare the CPU time of compilation with that of this commit (an hour)")
    parser.add_argument("--quick", action="store_true", help="measure MiniLM, BERT and the start of commands only (five minutes)")
    parser.add_argument("--no-trees", dest="trees", action="store_false", help="leave out the import of a large tree model")
    parser.add_argument("--contenders", type=names, default=CONTENDERS, help=",".join(CONTENDERS))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="duration of each measurement of a graph, in seconds")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="folder in which to keep and reuse the models and eland's environment")
    parser.add_argument("--output", type=Path, default=None, help="folder for bench.md, bench.html and bench.json [default: target/bench]")
    bench = parser.parse_args()
    if bench.quick:
        bench.models_, bench.graphs, bench.limited, bench.trees, bench.runs = ["minilm", "bert"], [], [], False, min(bench.runs, 3)
    return bench


def main():
    bench = arguments()
    bench.programs = target_folder() / "release"
    output = bench.output or target_folder() / "bench"
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rust-eland-bench-") as scratch:
        bench.scratch = Path(scratch)
        place = (bench.keep or bench.scratch).resolve()
        bench.eland, bench.models = place / "eland", place / "models"
        bench.models.mkdir(parents=True, exist_ok=True)
        install(bench.eland, ELAND)
        wanted = list(dict.fromkeys(["minilm", *bench.models_, *bench.delayed, *bench.limited, *bench.graphs, *bench.quantized]))
        subprocess.run([bench.eland / "bin" / "python", HERE / "models.py", bench.models, *wanted], check=True)

        results = {"machine": machine(), "load_before": os.getloadavg(), "runs": bench.runs, "eland": ELAND}
        results["startup"] = startup.measure(bench.programs / "rust-eland", bench.models / "minilm", TREE, bench.runs)
        results["imports"] = bench_imports(bench, bench.models_)
        results["delayed"] = bench_imports(bench, bench.delayed, bench.delay)
        results["limits"] = {model: bench_limits(bench, model, bench.limits) for model in bench.limited}
        results["graphs"] = bench_graphs(bench, bench.graphs)
        of = lambda model: quantization.measure(bench, model, cluster, run, command_of)
        results["quantized"] = {model: of(model) for model in bench.quantized}
        results["trees"] = bench_trees(bench) if bench.trees else {}
        commits = ["HEAD", bench.compile] if bench.compile else []
        results["compilation"] = {commit: compilation.measure(ROOT, commit, bench.scratch) for commit in commits}
        results["load_after"] = os.getloadavg()

    sections = [f"# Benchmark\n\n{results['machine']}; eland: {', '.join(ELAND)}; {bench.runs} runs, median (minimum–maximum)."]
    sections += ["## Requirements\n\n" + report.requirements_table(table, results),
                 "## Time until the first request or file\n\n" + table(["command", "milliseconds"], startup.rows(results["startup"])),
                 "## Table of README.md\n\n" + report.readme_table(table, results),
                 "## Table of docs/benchmarks.md\n\n" + report.benchmarks_table(table, results, bench.delay)]
    if results["imports"]:
        sections += ["## Imports\n\n" + ratio_table(results["imports"]), import_table(results["imports"]),
                     "## Duration of the stages of rust-eland\n\n" + stage_table(results["imports"])]
    if results["delayed"]:
        sections += [f"## Imports with {bench.delay} ms delay per part\n\n" + ratio_table(results["delayed"]), import_table(results["delayed"])]
    for model, limits in results["limits"].items():
        rows = [[limit, *([cell([one], f) for f in FIGURES] if isinstance(one, dict) else [one])] for limit, one in limits.items()]
        sections.append(f"## {model} with a memory limit that includes the page cache\n\n" + table(
            ["MiB", *(f"{name.replace('_', ' ')}, {unit}" for name, (unit, _) in FIGURES.items())], rows))
    if results["graphs"]:
        sections.append("## Served graphs, one thread\n\n" + report.graph_table(table, results["graphs"]))
    if results["quantized"]:
        sections.append("## Quantized models, one thread\n\n" + table(*quantization.rows(results["quantized"])))
    if results["trees"]:
        sections.append("## Tree model of 1,000 trees of depth 8\n\n" + tree_table(results["trees"]))
    (output / "bench.md").write_text("\n\n".join(sections) + "\n")
    (output / "bench.html").write_text(page.page(sections, results["imports"]))
    (output / "bench.json").write_text(json.dumps(results, indent=1) + "\n")
    print("\n\n".join(sections))
    say(f"written to {output}/bench.md, bench.html and bench.json")


if __name__ == "__main__":
    try:
        main()
    except (Failure, subprocess.CalledProcessError) as failure:
        sys.exit(f"bench: {failure}")
