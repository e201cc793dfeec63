"""Measures the definitions of one model created by several programs, in one process with one thread. Runs in eland's environment."""

import json
import statistics
import sys
import time

import torch

LENGTHS = (8, 32, 128, 512)


def inputs(module, length):
    """Returns inputs for one text without padding, as the server sends them (contract 3.4)."""
    count = len(list(module.forward.graph.inputs())) - 1
    torch.manual_seed(length)
    ids = torch.randint(1000, 20000, (1, length))
    return [ids, torch.ones_like(ids), torch.zeros_like(ids), torch.arange(length).unsqueeze(0)][:count]


def nodes(module):
    """Returns the number of nodes of the graph, with functions inlined and blocks included."""
    graph = module.forward.graph.copy()
    torch._C._jit_pass_inline(graph)
    count = lambda block: sum(1 + sum(map(count, node.blocks())) for node in block.nodes())
    return count(graph)


def timed(module, arguments):
    begun = time.perf_counter()
    module(*arguments)
    return (time.perf_counter() - begun) * 1000


def main():
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    modules = {name: torch.jit.load(path).eval() for name, path in settings["files"].items()}
    result = {"nodes": {name: nodes(module) for name, module in modules.items()}, "milliseconds": {}, "output_bytes": {}}
    for length in LENGTHS:
        arguments = {name: inputs(module, length) for name, module in modules.items()}
        with torch.inference_mode():
            try:
                for name in modules:
                    for _ in range(3):  # the executor optimizes the graph during the first runs
                        output = modules[name](*arguments[name])
                    output = output[0] if isinstance(output, tuple) else output
                    result["output_bytes"][name] = output.numel() * output.element_size()
            except RuntimeError:  # longer than the model's maximum
                continue
            times = {name: [] for name in modules}
            begun = time.perf_counter()
            turn = 0
            while turn < 10 or time.perf_counter() - begun < settings["seconds"] * len(modules):
                for name in modules if turn % 2 == 0 else reversed(modules):
                    times[name].append(timed(modules[name], arguments[name]))
                turn += 1
        of = {name: {"median": statistics.median(all), "least": min(all), "per_second": 1000 * len(all) / sum(all)}
              for name, all in times.items()}
        if "eland" in of:
            # The runs of a pair are adjacent, so that other load on the machine affects both.
            ratios = sorted(a / b for a, b in zip(times["ours"], times["eland"]))
            of["ratio"] = statistics.median(ratios)
            # Standard error of the median, from the interquartile range of the pairs.
            spread = ratios[3 * len(ratios) // 4] - ratios[len(ratios) // 4]
            of["noise"] = 1.25 * spread / 1.35 / len(ratios) ** 0.5
        result["milliseconds"][str(length)] = of
    print(json.dumps(result))


if __name__ == "__main__":
    main()
