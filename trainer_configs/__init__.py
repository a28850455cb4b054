"""LitGPT configs for `litgpt pretrain --config`, read with importlib.resources."""
