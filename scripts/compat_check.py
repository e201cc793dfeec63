"""Loads exported archives in the current PyTorch and compares their outputs with the references. Run by scripts/compat.py.

    compat_check.py JOBS.json FOUND.json
"""

import json
import struct
import sys
from pathlib import Path

import torch

# Number of tensors that the server sends (contract 3.4), its first token, separator and padding token, and its separators between two texts.
KINDS = {
    "bert": (4, "[CLS]", "[SEP]", "[PAD]", 1),
    "bert_ja": (4, "[CLS]", "[SEP]", "[PAD]", 1),
    "byte_level_bpe": (2, "<s>", "</s>", "<pad>", 2),
    "deberta_v2": (3, "[CLS]", "[SEP]", "[PAD]", 1),
    "mpnet": (2, "<s>", "</s>", "<pad>", 2),
    "roberta": (2, "<s>", "</s>", "<pad>", 2),
    "xlm_roberta": (2, "<s>", "</s>", "<pad>", 2),
}
PAIRS = ("question_answering", "text_similarity", "zero_shot_classification")
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
    ids = ids.masked_fill(mask == 0, padding)
    positions = torch.arange(ids.size(1)).expand_as(ids).contiguous()
    return [ids, mask.masked_fill(mask == 0, padding), torch.zeros_like(ids), positions][:count]


def has_two_separators(ids, mask, separator):
    is_separator = (ids == separator) & (mask != 0)
    return bool((is_separator[:, :-1] & is_separator[:, 1:]).any())


def repeat_separator(ids, mask, separator):
    """Repeats the first separator of each row, as the server does between two texts. Also returns the places of the other tokens."""
    first = ((ids == separator).cumsum(1) == 0).sum(1, keepdim=True)
    own, server = (torch.arange(count)[None] for count in (ids.size(1), ids.size(1) + 1))
    sources = server - (server > first).long()
    return ids.gather(1, sources), mask.gather(1, sources), own + (own > first).long()


class Job:
    """An exported model. Rows of the model's own tokenizer become rows of the server as in tests/suite/numbers.rs."""

    def __init__(self, job):
        folder, self.task = Path(job["folder"]), job["task"]
        configuration = json.loads((folder / "m.metadata.json").read_text())["inference_config"][self.task]
        self.vocabulary = json.loads((folder / "m.vocab.json").read_text())["vocabulary"]
        ((kind, settings),) = configuration["tokenization"].items()
        self.count, first, separator, padding, separators = KINDS[kind]
        self.first, self.separator, self.padding = (self.id(token) for token in (first, separator, padding))
        fixture = Path(job["fixture"])
        tensors = read_safetensors(fixture / "reference.safetensors")
        cases = json.loads((fixture / "reference.json").read_text())["tasks"][self.task]["cases"]
        self.cases = [
            (case["name"], case.get("texts") is not None, *(tensors[f"{self.task}/{case['name']}/{part}"] for part in ("input_ids", "attention_mask", "output")))
            for case in cases
        ]
        self.drops_first = settings.get("with_special_tokens", True) and self.first is not None and all(
            (ids[:, 0] != self.first).all() for _, _, ids, _, _ in self.cases)
        self.repeats = self.task in PAIRS and separators == 2 and not any(
            has_two_separators(ids, mask, self.separator) for _, _, ids, mask, _ in self.cases)
        self.module = torch.jit.load(str(folder / "m.pt")).eval()

    def id(self, token):
        return len(self.vocabulary) - 1 - self.vocabulary[::-1].index(token) if token in self.vocabulary else None

    def check(self):
        """Returns the largest difference from the references."""
        worst = 0.0
        for name, has_texts, ids, mask, expected in self.cases:
            # The server sends no pair without separators.
            if self.repeats and not has_texts:
                continue
            own_ids, own_mask, places = ids, mask, None
            if self.drops_first:
                ids, mask = (torch.cat([torch.full_like(part[:, :1], value), part], 1) for part, value in ((ids, self.first), (mask, 1)))
            if self.repeats:
                ids, mask, places = repeat_separator(ids, mask, self.separator)
            inputs = as_the_server_sends(ids, mask, self.count, self.padding)
            # The executor optimizes the graph after the first runs, so several runs are needed.
            with torch.inference_mode():
                for _ in range(3):
                    found = self.module(*inputs)
                    difference = self.difference(name, found, expected, own_ids, own_mask, places)
                    worst = difference if difference != difference else max(worst, difference)
        return worst

    def difference(self, name, found, expected, ids, mask, places):
        if isinstance(found, tuple):
            found = found[0]
        if places is not None and self.task == "question_answering":
            found = found.gather(-1, places[None].repeat(2, 1, 1))
        if self.drops_first and self.task == "ner":
            found = found[:, 1:]
        # Rows of the embedding table beyond the vocabulary are not tokens.
        if self.task == "text_expansion" or (self.task == "fill_mask" and found.shape != expected.shape):
            expected = expected[..., : len(self.vocabulary)]
        if found.shape != expected.shape:
            raise ValueError(f"{name}: the shape is {tuple(found.shape)}, expected {tuple(expected.shape)}")
        # States of the padding depend on its token, which can differ.
        if expected.shape[:2] == mask.shape and ((mask == 0) & (ids != self.padding)).any():
            found, expected = (part * (mask != 0).unsqueeze(-1) for part in (found, expected))
        return ((found - expected).abs().max() / expected.abs().max().clamp(min=1)).item()


def main(jobs, found):
    results = []
    for job in json.loads(Path(jobs).read_text()):
        try:
            difference, error = Job(job).check(), None
        except Exception as caught:  # reported at the end with the others
            difference, error = None, f"{type(caught).__name__}: {str(caught)[:500]}"
        results.append({"name": job["name"], "task": job["task"], "difference": difference, "error": error})
    Path(found).write_text(json.dumps(results))
    print(f"{len(results)} archives in PyTorch {torch.__version__}, {sum(r['error'] is not None for r in results)} failed")


if __name__ == "__main__":
    main(*sys.argv[1:])
