"""Loads exported archives in the current PyTorch and compares their outputs with the references. Run by scripts/compat.py.

    compat_check.py JOBS.json FOUND.json
"""

import json
import struct
import sys
from pathlib import Path

import torch

# Number of tensors that the server sends (contract 3.4), and the padding token.
KINDS = {
    "bert": (4, "[PAD]"),
    "bert_ja": (4, "[PAD]"),
    "deberta_v2": (3, "[PAD]"),
    "mpnet": (2, "<pad>"),
    "roberta": (2, "<pad>"),
    "xlm_roberta": (2, "<pad>"),
}
TYPES = {"F32": torch.float32, "I64": torch.int64}


def read_safetensors(path):
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            count = (end - begin) // (4 if entry["dtype"] == "F32" else 8)
            flat = torch.frombuffer(data, dtype=TYPES[entry["dtype"]], count=count, offset=8 + length + begin)
            tensors[name] = flat.reshape(entry["shape"])
    return tensors


def as_the_server_sends(ids, mask, count, padding):
    """Prepares inputs as the server does: the mask contains the padding id at padding, token types are 0, positions start at 0."""
    positions = torch.arange(ids.size(1)).expand_as(ids).contiguous()
    return [ids, mask.masked_fill(mask == 0, padding), torch.zeros_like(ids), positions][:count]


def check(job):
    folder, task = Path(job["folder"]), job["task"]
    configuration = json.loads((folder / "m.metadata.json").read_text())["inference_config"][task]
    vocabulary = json.loads((folder / "m.vocab.json").read_text())["vocabulary"]
    count, padding = KINDS[next(iter(configuration["tokenization"]))]
    padding = len(vocabulary) - 1 - vocabulary[::-1].index(padding)
    fixture = Path(job["fixture"])
    tensors = read_safetensors(fixture / "reference.safetensors")
    module = torch.jit.load(str(folder / "m.pt")).eval()
    worst = 0.0
    for case in json.loads((fixture / "reference.json").read_text())["tasks"][task]["cases"]:
        part = {key: tensors[f"{task}/{case['name']}/{key}"] for key in ("input_ids", "attention_mask", "output")}
        expected = part["output"]
        if task == "text_expansion":
            expected = expected[:, : len(vocabulary)]
        inputs = as_the_server_sends(part["input_ids"], part["attention_mask"], count, padding)
        # The executor optimizes the graph after the first runs, so several runs are needed.
        with torch.inference_mode():
            for _ in range(3):
                found = module(*inputs)
                if isinstance(found, tuple):
                    found = found[0]
                if found.shape != expected.shape:
                    raise ValueError(f"{case['name']}: the shape is {tuple(found.shape)}, expected {tuple(expected.shape)}")
                difference = ((found - expected).abs().max() / expected.abs().max().clamp(min=1)).item()
                worst = difference if difference != difference else max(worst, difference)
    return worst


def main(jobs, found):
    results = []
    for job in json.loads(Path(jobs).read_text()):
        try:
            difference, error = check(job), None
        except Exception as caught:  # reported at the end with the others
            difference, error = None, f"{type(caught).__name__}: {str(caught)[:500]}"
        results.append({"name": job["name"], "task": job["task"], "difference": difference, "error": error})
    Path(found).write_text(json.dumps(results))
    print(f"{len(results)} archives in PyTorch {torch.__version__}, {sum(r['error'] is not None for r in results)} failed")


if __name__ == "__main__":
    main(*sys.argv[1:])
