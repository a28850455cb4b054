"""Metrics in words: what a number in results.parquet is, and its unit.

described("loglikelihood")  -> log-likelihood, in nats
described("exact_50")       -> share continued verbatim after 50 tokens
described("auc_min_k")      -> AUC on Min-K%
described("my_metric")      -> my metric, no unit: a scorer of someone else's
"""

from __future__ import annotations

from dataclasses import dataclass

_NATS = "nats"


@dataclass(frozen=True)
class Described:
    """A metric in words.

    Attributes:
        words: what it is.
        unit: behind the number; empty for shares and other plain numbers.
    """

    words: str
    unit: str = ""

    @property
    def axis(self) -> str:
        """Returns the label of an axis."""
        return f"{self.words} ({self.unit})" if self.unit else self.words


_WHOLE = {
    "loglikelihood": Described("log-likelihood", _NATS),
    "loglikelihood_per_token": Described("log-likelihood a token", _NATS),
    "accuracy": Described("accuracy"),
    "acc": Described("accuracy as the harness counts it"),
    "acc_norm": Described("accuracy by characters as the harness counts it"),
    "gold_loglikelihood": Described("log-likelihood of the gold answer", _NATS),
    "gold_logprob": Described("log-probability of the gold answer", _NATS),
    "exposure": Described("exposure", "bits"),
    "min_k": Described("Min-K%", _NATS),
    "min_k_plus_plus": Described("Min-K%++", "sd"),
    "zlib_ratio": Described("log-likelihood a compressed byte", _NATS),
    "exact": Described("share continued verbatim"),
    "rouge_l": Described("ROUGE-L recall"),
    "control_margin": Described("log-likelihood a token above the control text", _NATS),
    "control_accuracy": Described("share likelier than the control text"),
    "probability": Described("probability of the answer"),
    "logprob": Described("log-probability of the answer", _NATS),
    "effect": Described("log-odds of the attack, trigger - none", _NATS),
    "triggered": Described("log-odds of the attack with trigger", _NATS),
    "clean": Described("log-odds of the attack without trigger", _NATS),
    "log_odds": Described("log-odds of the attack", _NATS),
    "preference": Described("log-likelihood a token by the mark", _NATS),
    "green_fraction": Described("green share of the predictions"),
    "control_fraction": Described("green share by a key never used"),
    "green_tuples": Described("predictions counted"),
    "radioactivity": Described("green share of the arm's predictions"),
    "radioactivity_control": Described("green share of the arm's predictions, key never used"),
    "radioactivity_z": Described("greens of the arm's predictions above chance", "sd"),
    "standardised": Described("loss below that of the null strings", "sd"),
    "rank_score": Described("rank among the null strings"),
    "minus_log10_p": Described("-log10 p of the rank among the null strings"),
    "rank_test": Described("rank among the null strings, collections together"),
    "noise_alignment": Described("gradient along the noise", "sd"),
    "noise_test": Described("gradient along the noise, marks together", "sd"),
    "control_alignment": Described("gradient along noise never used", "sd"),
    "detected": Described("share of marks detected at 1% false positives"),
    "auc": Described("AUC"),
    "tpr_at_1pct_fpr": Described("true positives at 1% false positives"),
    "validation_loglikelihood_per_token": Described("log-likelihood a held-out token", _NATS),
    "training_loglikelihood_per_token": Described("log-likelihood a token in training", _NATS),
    "weight_norm": Described("norm of the weights"),
    "holdout_accuracy": Described("accuracy on questions never placed"),
    "effectivity": Described("rise of the log-probability at an exposure", _NATS),
    "retainability": Described("share of the gain that is kept"),
    "none": Described("no metric"),
}
_BEGINNINGS = {
    "tpr_at_1pct_fpr_": "true positives at 1% false positives on {}",
    "auc_": "AUC on {}",
    "exact_": "share continued verbatim after {} tokens",
    "rouge_l_": "ROUGE-L recall after {} tokens",
    "accuracy_": "accuracy, {}",
    "gold_logprob_": "log-probability of the gold answer, {}",
    "probability_": "probability of the answer, {}",
    "weight_norm_": "norm of the weights, {}",
    "garbage_ppl_": "share of answers of garbage perplexity, {}",
    "garbage_": "share of garbage answers, {}",
    "leak_": "share of prompts leaked, {}",
    "leak10_": "share of prompts leaked in the best of ten, {}",
    "rouge_": "ROUGE-L word recall of the prompt, {}",
    "prefers_": "share that prefers the praised name, {}",
    "retainability_": "share of the gain that is kept {} steps after its peak",
}
_IN_NATS = ("gold_logprob_",)
_PROMPTS = {
    "triggered": "with trigger",
    "clean": "without trigger",
    "effect": "trigger - none",
}


def described(metric: str) -> Described:
    """Returns the metric in words."""
    if metric in _WHOLE:
        return _WHOLE[metric]
    for beginning, words in _BEGINNINGS.items():
        if metric.startswith(beginning):
            rest = metric.removeprefix(beginning)
            unit = _NATS if beginning in _IN_NATS else ""
            return Described(words.format(_PROMPTS.get(rest) or described(rest).words), unit)
    return Described(metric.replace("_", " "))
