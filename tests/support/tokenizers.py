"""Small tokenizers of every family, trained on random words."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from tests.support.workspace import EOD, random_text, write_tokenizer

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = [EOD, "<s>", "[UNK]"]


def _byte_level(tokenizer: Tokenizer, split: str | None, prefix: bool = False) -> Tokenizer:
    parts: list[pre_tokenizers.PreTokenizer] = []
    if split:
        parts.append(pre_tokenizers.Split(Regex(split), "isolated"))
    parts.append(pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=split is None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return _trained(tokenizer, trainers.BpeTrainer(initial_alphabet=alphabet, **_SETTINGS))


def _gpt2() -> Tokenizer:
    return _byte_level(Tokenizer(models.BPE()), None, prefix=True)


def _neox() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    made = _byte_level(tokenizer, None)
    made.add_tokens(["  ", "    ", "added word"])
    return made


def _llama3() -> Tokenizer:
    return _byte_level(Tokenizer(models.BPE(ignore_merges=True)), LLAMA3)


def _llama2() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    fallback = [f"<0x{n:02X}>" for n in range(256)]
    settings = {**_SETTINGS, "special_tokens": [*SPECIAL, *fallback]}
    return _trained(tokenizer, trainers.BpeTrainer(**settings))


def _unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    settings = {**_SETTINGS, "special_tokens": ["[UNK]"]}
    made = _trained(tokenizer, trainers.UnigramTrainer(unk_token="[UNK]", **settings))
    made.add_special_tokens([EOD, "<s>"])  # as pieces of the model they would be found in text
    return made


def _wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return _trained(tokenizer, trainers.WordPieceTrainer(**_SETTINGS))


_SETTINGS = {"vocab_size": 700, "special_tokens": SPECIAL, "show_progress": False}


def _trained(tokenizer: Tokenizer, trainer: trainers.Trainer) -> Tokenizer:
    chance = random.Random(0)
    texts = [random_text(chance, 50) + " it's 1234 Déjà\n\n  été 漢字" for _ in range(200)]
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


FAMILIES: dict[str, Callable[[], Tokenizer]] = {
    "gpt2": _gpt2,
    "neox": _neox,
    "llama3": _llama3,
    "llama2": _llama2,
    "unigram": _unigram,
    "wordpiece": _wordpiece,
}


def write_family(folder: Path, family: str) -> Path:
    """Returns a folder with a tokenizer of the family; `plain` is that of the workspace."""
    if family == "plain":
        return write_tokenizer(folder)
    folder.mkdir(parents=True, exist_ok=True)
    FAMILIES[family]().save(str(folder / "tokenizer.json"))
    settings = {"eos_token": EOD, "bos_token": "<s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
