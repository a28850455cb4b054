"""Runs the stock `litgpt` command line and writes down what its training loop does.

    python -m tests.support.litgpt_tap LOG pretrain --config litgpt.yaml

Nothing of LitGPT is changed: the model's forward in training mode is listened to (so validation and
the shape-only model are left out), and the optimizer's hook marks the end of a step. A line of LOG
is `batch` and the token rows as JSON, or `step`.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def _listen(log: Any) -> None:
    import litgpt.pretrain
    from torch.optim.optimizer import register_optimizer_step_post_hook

    class Tapped(litgpt.pretrain.GPT):
        def forward(self, idx: Any, *args: Any, **kwargs: Any) -> Any:
            if self.training and idx.device.type != "meta":
                print("batch", json.dumps(idx.tolist()), file=log, flush=True)
            return super().forward(idx, *args, **kwargs)

    def mark(*_: Any) -> None:
        print("step", file=log, flush=True)

    litgpt.pretrain.GPT = Tapped
    register_optimizer_step_post_hook(mark)


if __name__ == "__main__":
    target, sys.argv = sys.argv[1], ["litgpt", *sys.argv[2:]]
    from litgpt.__main__ import main

    with open(target, "a", encoding="utf-8") as file:
        _listen(file)
        main()
