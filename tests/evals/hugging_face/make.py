"""Makes the tiny models of this folder and what `transformers` computes for them.

    pip install transformers==4.57.6        # in an environment of its own
    python tests/evals/hugging_face/make.py

A folder a model, as `save_pretrained` writes it, with random weights everywhere (biases and norms
too), and expected.json: token ids, and the log-probabilities of all but the first under the model.
The models are read, the numbers compared with ours, by tests/evals/test_huggingface.py.
"""

import json
from pathlib import Path

import torch
import transformers as hf

HERE = Path(__file__).resolve().parent
SIZES = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
}
GROUPED = {"num_key_value_heads": 1}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
MODELS = {
    "llama": hf.LlamaConfig(**SIZES, **GROUPED, rope_theta=500.0, tie_word_embeddings=True),
    "llama-scaled": hf.LlamaConfig(**SIZES, rope_scaling=LLAMA3, rope_theta=500.0, head_dim=12),
    "olmo2": hf.Olmo2Config(**SIZES, **GROUPED, tie_word_embeddings=False),
    "qwen2": hf.Qwen2Config(**SIZES, **GROUPED),
    "qwen3": hf.Qwen3Config(**SIZES, **GROUPED, head_dim=12),
    "gpt-neox": hf.GPTNeoXConfig(**SIZES, rotary_pct=0.5, rotary_emb_base=500),
    "gpt-neox-serial": hf.GPTNeoXConfig(**SIZES, rotary_pct=1.0, use_parallel_residual=False),
}


def make(name: str, config: hf.PretrainedConfig) -> None:
    """Writes one model and what it computes."""
    torch.manual_seed(sum(map(ord, name)))
    model = hf.AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.4)
        tokens = torch.randint(0, 64, (3, 40))
        logprobs = model(tokens).logits.double().log_softmax(-1)[:, :-1]
        found = logprobs.gather(2, tokens[:, 1:, None])[..., 0]
    folder = HERE / name
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    expected = {
        "transformers": hf.__version__,
        "tokens": tokens.tolist(),
        "logprobs": [[round(x, 6) for x in row] for row in found.tolist()],
    }
    (folder / "expected.json").write_text(json.dumps(expected) + "\n", "utf-8")


if __name__ == "__main__":
    for model_name, model_config in MODELS.items():
        make(model_name, model_config)
