"""Compares a model in float32 with its quantizations by eland and by rust-eland: size, memory, time."""

import json
import shutil
import subprocess
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Name of a definition, contender, and its options. graphs.py compares `ours` with `eland`.
DEFINITIONS = [
    ("float32", "ours", []), ("eland", "eland", ["--quantize"]), ("ours", "ours", ["--quantize"]),
    ("embeddings", "ours", ["--quantize=embeddings"]),
]
NAMES = {"float32": "float32", "eland": "eland `--quantize`", "ours": "rust-eland `--quantize`", "embeddings": "rust-eland `--quantize=embeddings`"}
# Memory that Elasticsearch reserves for a process in addition to twice the definition.
NATIVE_PROCESS = 240 << 20


def required_memory(size, metadata):
    """Returns the bytes that Elasticsearch reserves for the first allocation (contract 7.5)."""
    figures = [metadata.get(name) for name in ("per_deployment_memory_bytes", "per_allocation_memory_bytes")]
    measured = size + sum(figure or 0 for figure in figures) if any(figures) else 0
    return max(NATIVE_PROCESS + 2 * size, measured)


def resident(python, path):
    """Returns the resident bytes of a process that serves a definition, without those of PyTorch itself."""
    done = subprocess.run([python, HERE / "resident.py", path], stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout)


def measure(bench, model, cluster, run, command_of):
    """Imports a model with each program and measures the stored definitions. Returns a reason as text if an import fails."""
    python = bench.eland / "bin" / "python"
    result, files = {}, {}
    with cluster(bench) as standin:
        for name, contender, options in DEFINITIONS:
            figures = run(bench, standin, command_of(bench, contender, model, standin.url, name) + options)
            if isinstance(figures, str):
                return f"{name}: {figures}"
            files[name] = standin.definition(name, bench.scratch / f"{name}.pt")
            with urllib.request.urlopen(f"{standin.url}/_ml/trained_models/{name}", timeout=30) as answer:
                metadata = json.load(answer)["trained_model_configs"][0].get("metadata", {})
            size = files[name].stat().st_size
            result[name] = {"size": size, "reserved": required_memory(size, metadata), "import": figures["wall"],
                            "agreement": metadata.get("quantization", {}).get("agreement", {})}
    shutil.rmtree(bench.scratch / "data")
    for name, path in files.items():
        result[name]["resident"] = resident(python, path)
    settings = json.dumps({"files": {name: str(path) for name, path in files.items()}, "seconds": bench.seconds})
    done = subprocess.run([python, HERE / "graphs.py", settings], stdout=subprocess.PIPE, text=True, check=True)
    for length, times in json.loads(done.stdout)["milliseconds"].items():
        for name in files:
            result[name][f"{length} tokens"] = times[name]["least"]
    for path in files.values():
        path.unlink()
    return result


def rows(results):
    """Returns the header and the rows of the table for each model."""
    lengths = [f"{length} tokens" for length in (8, 32, 128, 512)]
    header = ["model", "definition", "size, MB", "reserved, MB", "resident, MB", "import, s", *lengths]
    lines = []
    for model, result in results.items():
        if isinstance(result, str):
            lines.append([model, result, *[""] * (len(header) - 2)])
            continue
        base = result["float32"]
        for name, figures in result.items():
            times = [f"{figures[length]:.2f} ms ({figures[length] / base[length]:.2f})" if length in figures else "" for length in lengths]
            megabytes = [f"{figures[key] / 1e6:.0f}" for key in ("size", "reserved", "resident")]
            lines.append([model, NAMES[name], *megabytes, f"{figures['import']:.2f}", *times])
    return header, lines
