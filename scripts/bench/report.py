"""Tables of a benchmark's results: those of README.md and docs/benchmarks.md, the requirements, and the served graphs."""

import statistics

NAMES = {
    "minilm": "MiniLM-L6, 22 M parameters", "static": "static embeddings, 31 M", "bert": "BERT-base, 108 M", "xlmr": "XLM-R base, 278 M",
    "bart": "BART-base, 139 M", "xlmr-large": "XLM-R large, 568 M",
}
IMPORTS = {"minilm": "MiniLM-L6 (22 M parameters)", "bert": "BERT-base (108 M parameters)", "xlmr": "XLM-R base (278 M parameters)"}


def medians(contenders, name):
    runs = contenders.get(name)
    if not runs or isinstance(runs, str):
        return None
    return {figure: statistics.median(run[figure] for run in runs) for figure in ("wall", "cpu", "peak_resident", "peak_anonymous")}


def cells(contenders, figure, names, scale=1, digits=1):
    found = [medians(contenders, name) for name in names]
    return ", ".join("–" if one is None else f"{one[figure] / scale:,.{digits}f}" for one in found)


def import_rows(results, after=""):
    both = ("ours", "eland")
    return [[NAMES.get(model, model) + after, cells(found, "wall", (*both, "floor")), cells(found, "cpu", both),
             cells(found, "peak_resident", both, 1e6, 0), cells(found, "peak_anonymous", both, 1e6, 0)] for model, found in results.items()]


def benchmarks_table(table, results, delay):
    """The table of docs/benchmarks.md."""
    header = ["model", "wall time (s): rust-eland, eland, floor", "CPU time (s): rust-eland, eland", "peak memory (MB): rust-eland, eland",
              "of which anonymous memory (MB): rust-eland, eland"]
    return table(header, import_rows(results["imports"]) + import_rows(results["delayed"], f" with {delay} ms delay per part"))


def readme_table(table, results):
    """The rows of README.md that are measured."""
    rows = []
    for model, found in results["imports"].items():
        ours, eland = (medians(found, name) for name in ("ours", "eland"))
        if model in IMPORTS and ours and eland:
            shown = lambda one: f"{one['wall']:.1f} s, {one['peak_resident'] / 1e6:,.0f} MB of memory"
            rows.append([f"Import of {IMPORTS[model]}", shown(ours), shown(eland)])
    return table(["", "rust-eland", "eland 9.2.0"], rows)


def requirements_table(table, results):
    """Every requirement with its measurement."""
    rows = []
    quotient = lambda found, above, below: (lambda one, other: f"{one['wall'] / other['wall']:.2f} ({one['wall']:.2f} / {other['wall']:.2f})"
                                            if one and other else "–")(medians(found, above), medians(found, below))
    if startup := results.get("startup"):
        slowest = max((statistics.median(times), name) for name, times in startup.items() if times)
        rows.append([f"slowest start ({slowest[1]}), ms", "≤ 50", f"{1000 * slowest[0]:.0f}"])
    imports = results["imports"]
    for model, least in (("minilm", 15), ("bert", 14), ("xlmr", 10)):
        if model in imports:
            rows.append([f"{NAMES[model]}: eland / rust-eland", f"≥ {least}", quotient(imports[model], "eland", "ours")])
    for model in ("bert", "xlmr"):
        if model in imports:
            rows.append([f"{NAMES[model]}: rust-eland / floor", "≤ 1.3", quotient(imports[model], "ours", "floor")])
    for model, found in results["delayed"].items():
        rows.append([f"{NAMES[model]}, delayed parts: eland / rust-eland", "≥ 12", quotient(found, "eland", "ours")])
    for model, found in results["limits"].items():
        for limit, run in found.items():
            rows.append([f"{NAMES.get(model, model)} in {limit} MiB", "succeeds", run if isinstance(run, str) else f"{run['wall']:.1f} s"])
        anonymous = [run["peak_anonymous"] for run in found.values() if isinstance(run, dict)]
        if anonymous:
            rows.append([f"{NAMES.get(model, model)}: anonymous memory, MB", "≤ 150", f"{max(anonymous) / 1e6:.0f}"])
    if compiled := results.get("compilation"):
        seconds = {name: value if isinstance(value, str) else f"{value:.0f} s" for name, value in compiled.items()}
        rows.append(["CPU time of compilation", "≤ 60 % of the baseline", ", ".join(f"{name}: {value}" for name, value in seconds.items())])
    return table(["requirement", "limit", "measured"], rows)


def graph_table(table, results):
    # Static embeddings need microseconds.
    shown = lambda value: f"{value:.1f}" if value >= 1 else f"{value:.3f}"
    rows = []
    for model, result in results.items():
        if isinstance(result, str):
            rows.append([model, result, *[""] * 7])
            continue
        nodes, size = result["nodes"], result.get("output_bytes", {})
        ratios = []
        for length in ("8", "32", "128", "512"):
            times = result["milliseconds"].get(length)
            ratios.append("" if not times else f"{shown(times['ours']['median'])} / {shown(times['eland']['median'])} = {times['ratio']:.3f}"
                          f" ± {times['noise']:.3f}" if "eland" in times else shown(times["ours"]["median"]))
        rows.append([model, result["task"], f"{nodes['ours']} / {nodes.get('eland', '–')}", *ratios,
                     f"{size.get('ours', '')} / {size.get('eland', '–')}", result.get("failure", "")])
    return table(["model", "task", "nodes, ours / eland", *(f"ms at {n} tokens" for n in (8, 32, 128, 512)),
                  "bytes of output at 512", "eland"], rows)
