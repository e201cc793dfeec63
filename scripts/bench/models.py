"""Creates the models of the benchmark: seeded random weights and tokenizers with the sizes of real models. Runs in eland's
environment: python models.py FOLDER NAME ..."""

import json
import math
import random
import sys
from pathlib import Path

import torch
import transformers as hf

LETTERS = "etaoinshrdlucmfwypvbgkjqxz"


def words(count, seed, alphabets=(LETTERS,)):
    """Returns `count` different random words, single letters first."""
    rng = random.Random(seed)
    found = dict.fromkeys(letter for alphabet in alphabets for letter in alphabet)
    while len(found) < count:
        alphabet = alphabets[len(found) % len(alphabets)]
        found["".join(rng.choices(alphabet, k=rng.choice((2, 3, 4, 5, 6, 7, 8))))] = None
    return list(found)[:count]


def word_piece(folder, size, specials=("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), name="BertTokenizer", **settings):
    plain = words(size - len(specials) - 26, size)
    pieces = [*specials, *plain[:26], *("##" + letter for letter in plain[:26])]
    pieces += ["##" + word if place % 4 == 0 else word for place, word in enumerate(plain[26:])]
    (folder / "vocab.txt").write_text("\n".join(pieces[:size]) + "\n")
    slow = getattr(hf, name)(str(folder / "vocab.txt"), model_max_length=512, **settings)
    slow.save_pretrained(folder)
    getattr(hf, name + "Fast").from_pretrained(folder).save_pretrained(folder)


def unigram(folder, size, name, file, specials):
    """Writes a SentencePiece model and its tokenizer.json."""
    from sentencepiece import sentencepiece_model_pb2 as proto

    model = proto.ModelProto()
    model.trainer_spec.model_type = proto.TrainerSpec.UNIGRAM
    model.trainer_spec.unk_id = specials.index(next(s for s in specials if "unk" in s.lower()))
    model.trainer_spec.vocab_size = size
    model.normalizer_spec.name = "nmt_nfkc"
    kinds = {True: proto.ModelProto.SentencePiece.UNKNOWN, False: proto.ModelProto.SentencePiece.CONTROL}
    for special in specials:
        model.pieces.add(piece=special, score=0.0, type=kinds["unk" in special.lower()])
    alphabets = (LETTERS, "оеаинтсрвлкмдпуя", "αβγδεικλμνοπρστ", "的一是不了人我在有他这中大来上国")
    for rank, word in enumerate(words(size - len(specials), size, alphabets)):
        model.pieces.add(piece="▁" + word if rank % 2 and len(word) > 1 else word, score=-math.log(rank + 2))
    (folder / file).write_bytes(model.SerializeToString())
    slow = getattr(hf, name)(str(folder / file), model_max_length=512)
    slow.save_pretrained(folder)
    getattr(hf, name + "Fast").from_pretrained(folder).save_pretrained(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["tokenizer_class"] = name
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def byte_level(folder, size, name):
    from transformers.models.gpt2.tokenization_gpt2 import bytes_to_unicode

    rng = random.Random(size)
    tokens = dict.fromkeys(["<s>", "<pad>", "</s>", "<unk>", *bytes_to_unicode().values()])
    parts, merges = list(bytes_to_unicode().values()), []
    while len(tokens) < size - 1:
        left, right = rng.choice(parts), rng.choice(parts)
        if len(left + right) <= 12 and left + right not in tokens:
            tokens[left + right] = None
            parts.append(left + right)
            merges.append(f"{left} {right}")
    tokens["<mask>"] = None
    (folder / "vocab.json").write_text(json.dumps({token: id for id, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    slow = getattr(hf, name)(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=512)
    slow.save_pretrained(folder)
    getattr(hf, name + "Fast").from_pretrained(folder).save_pretrained(folder)


def sentence_transformers(folder, width, length):
    def write(name, value):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(value))

    kind = "sentence_transformers.models."
    write("modules.json", [
        {"idx": 0, "name": "0", "path": "", "type": kind + "Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": kind + "Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": kind + "Normalize"},
    ])
    write("sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False})
    write("1_Pooling/config.json", {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True,
                                    "pooling_mode_cls_token": False, "pooling_mode_max_tokens": False})
    (folder / "2_Normalize").mkdir(exist_ok=True)


def static_embeddings(folder):
    """Writes a table of 30,522 vectors with 1,024 numbers, in the layout of sentence-transformers, which has no config.json."""
    from safetensors.torch import save_file

    word_piece(folder, 30_522)
    for path in folder.iterdir():
        if path.name != "tokenizer.json":
            path.unlink()
    save_file({"embedding.weight": torch.randn(30_522, 1024)}, folder / "model.safetensors")
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.StaticEmbedding"}]
    (folder / "modules.json").write_text(json.dumps(modules))


SMALL = dict(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
ENTITIES = ["O", *(f"{place}-{kind}" for kind in ("MISC", "PER", "ORG", "LOC") for place in "BI")]
NLI = dict(id2label={0: "contradiction", 1: "neutral", 2: "entailment"}, label2id={"contradiction": 0, "neutral": 1, "entailment": 2})


def wp(size=30522, **settings):
    return lambda folder: word_piece(folder, size, **settings)


def xlmr(folder):
    unigram(folder, 250_000, "XLMRobertaTokenizer", "sentencepiece.bpe.model", ["<unk>", "<s>", "</s>"])


def deberta(folder):
    unigram(folder, 128_000, "DebertaV2Tokenizer", "spm.model", ["[PAD]", "[CLS]", "[SEP]", "[UNK]"])


def mpnet(folder):
    word_piece(folder, 30_527, ("<s>", "<pad>", "</s>", "<unk>", "<mask>", "[UNK]"), "MPNetTokenizer")


def ignore(_):
    pass


# name: (task, model class, configuration class and values, tokenizer, additional files)
XLMR = dict(vocab_size=250_002, type_vocab_size=1, max_position_embeddings=514, bos_token_id=0, pad_token_id=1, eos_token_id=2)
XLMR_LARGE = {**XLMR, "max_position_embeddings": 8194, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
              "intermediate_size": 4096}
MODELS = {
    "minilm": ("text_embedding", "BertModel", ("BertConfig", SMALL), wp(), lambda f: sentence_transformers(f, 384, 256)),
    "bert": ("ner", "BertForTokenClassification", ("BertConfig", dict(id2label=dict(enumerate(ENTITIES)), label2id={name: id for id, name in enumerate(ENTITIES)})),
             wp(), ignore),
    "xlmr": ("text_embedding", "XLMRobertaModel", ("XLMRobertaConfig", XLMR), xlmr, lambda f: sentence_transformers(f, 768, 512)),
    "bart": ("zero_shot_classification", "BartForSequenceClassification", ("BartConfig", NLI),
             lambda f: byte_level(f, 50_265, "BartTokenizer"), ignore),
    "xlmr-large": ("text_embedding", "XLMRobertaModel", ("XLMRobertaConfig", XLMR_LARGE), xlmr, lambda f: sentence_transformers(f, 1024, 512)),
    "xlmr-large-f16": ("text_embedding", "XLMRobertaModel", ("XLMRobertaConfig", {**XLMR_LARGE, "torch_dtype": "float16"}), xlmr,
                       lambda f: sentence_transformers(f, 1024, 512)),
    "xlmr-large-bf16": ("text_embedding", "XLMRobertaModel", ("XLMRobertaConfig", {**XLMR_LARGE, "torch_dtype": "bfloat16"}), xlmr,
                        lambda f: sentence_transformers(f, 1024, 512)),
    # Without a transformer.
    "static": ("text_embedding", None, None, static_embeddings, ignore),
    # For the comparison of served graphs only.
    "mpnet": ("text_embedding", "MPNetModel", ("MPNetConfig", dict(vocab_size=30_527, max_position_embeddings=514)), mpnet,
              lambda f: sentence_transformers(f, 768, 384)),
    "deberta": ("text_classification", "DebertaV2ForSequenceClassification",
                ("DebertaV2Config", dict(vocab_size=128_100, relative_attention=True, position_buckets=256, norm_rel_ebd="layer_norm",
                                         share_att_key=True, pos_att_type=["p2c", "c2p"], max_relative_positions=-1,
                                         position_biased_input=False, type_vocab_size=0, num_labels=2, hidden_size=768,
                                         num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
                                         layer_norm_eps=1e-7)), deberta, ignore),
    "electra": ("text_classification", "ElectraForSequenceClassification",
                ("ElectraConfig", dict(embedding_size=768, hidden_size=768, num_attention_heads=12, intermediate_size=3072)),
                wp(name="ElectraTokenizer"), ignore),
    "mobilebert": ("question_answering", "MobileBertForQuestionAnswering", ("MobileBertConfig", {}), wp(name="MobileBertTokenizer"),
                   ignore),
    "distilbert": ("text_classification", "DistilBertForSequenceClassification", ("DistilBertConfig", {}),
                   wp(name="DistilBertTokenizer"), ignore),
    "roberta": ("text_classification", "RobertaForSequenceClassification",
                ("RobertaConfig", dict(vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1)),
                lambda f: byte_level(f, 50_265, "RobertaTokenizer"), ignore),
    "fill-mask": ("fill_mask", "BertForMaskedLM", ("BertConfig", {}), wp(), ignore),
    "expansion": ("text_expansion", "BertForMaskedLM", ("BertConfig", {}), wp(), ignore),
    "qa": ("question_answering", "BertForQuestionAnswering", ("BertConfig", {}), wp(), ignore),
    "similarity": ("text_similarity", "BertForSequenceClassification", ("BertConfig", {**SMALL, "num_labels": 1}), wp(), ignore),
    "pass-through": ("pass_through", "BertModel", ("BertConfig", SMALL), wp(), ignore),
}


def transformer(model, config, values):
    model = getattr(hf, model)(getattr(hf, config)(**values)).eval()
    # Larger weights make the outputs differ from text to text.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(2)
    return model


def make(place, name):
    task, model, config, tokenizer, rest = MODELS[name]
    partial = place.with_name(name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(len(name))
    tokenizer(partial)
    if model:
        # Weights of 16 bits are created with 32.
        kind = getattr(torch, config[1].get("torch_dtype", "float32"))
        transformer(model, *config).to(kind).save_pretrained(partial, safe_serialization=True, max_shard_size="20GB")
    rest(partial)
    (partial / "task").write_text(task)
    partial.rename(place)


def main():
    folder = Path(sys.argv[1])
    for name in sys.argv[2:] or MODELS:
        if not (folder / name).is_dir():
            print(f"creating {name}", file=sys.stderr, flush=True)
            make(folder / name, name)


if __name__ == "__main__":
    main()
