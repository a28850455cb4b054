"""What the watermark scorer needs: a model for each method."""

from __future__ import annotations

from typing import Literal

from mixctl.shards.meta.base import Meta


class GreenListMeta(Meta):
    """A document whose tokens lean to the green ones; its tokens are the item's payload.

    Attributes:
        key: the secret key of the experiment (64 bits): with `context_width` and `gamma` it says
            which token is green after which context (`shards.green_list`).
        gamma: the share of tokens that are green.
        delta: what was added to the logit of a green token; None where the documents came marked.
        context_width: how many tokens before a token decide whether it is green.
        clean_tokens: the same document by the same process with delta 0: the unmarked control. None
            where the documents came marked.
        n_changed: how many tokens differ from the document as it was given; None where there is no
            such document.
    """

    method: Literal["green-list"] = "green-list"
    key: int
    gamma: float
    delta: float | None
    context_width: int
    clean_tokens: list[int] | None = None
    n_changed: int | None = None


class StringsMeta(Meta):
    """A collection of documents that all end in one random string.

    The string and the null strings are exchangeable: independent draws, all kept for having the
    same number of tokens. So the p-value of the string's loss is exact by its rank among them.

    Attributes:
        n_documents: documents of the collection.
        context_tokens: what stands before the string in every document, to be scored before it
            (the line break of a string made of characters); may be empty.
        string_tokens: the string, which ends every document of the collection.
        null_strings: strings that were never placed, each as long in tokens.
    """

    method: Literal["strings"] = "strings"
    n_documents: int
    context_tokens: list[int]
    string_tokens: list[int]
    null_strings: list[list[int]]


class GaussianMeta(Meta):
    """A mark: sequences to whose input embeddings noise is added while the model trains.

    No byte of the shards changes. The noise of a marked sequence is, in float32,

        key = numpy.array([noise_seed, row], dtype=numpy.uint64)
        generator = numpy.random.Generator(numpy.random.Philox(key=key))
        noise = sigma * generator.standard_normal((sequence_tokens - 1, n_embd), dtype="float32")

    where row counts the sequences of the mark from 0 (of a batch: the row in the global batch;
    of a single sequence: 0), sequence_tokens - 1 is the number of input tokens and n_embd the
    width of the embeddings. `noise[t]` is added to the embedding of input token t. Each row has a
    key of its own, so any rank makes its rows without the others. numpy keeps Philox's bits fixed
    for ever and the normal draw made of them in practice only (NEP 19), so `noise` names the rule.

    Attributes:
        unit: whether the mark is a whole batch or one sequence.
        n_sequences: sequences of the mark.
        sigma: the standard deviation of the noise.
        noise: the rule above.
        noise_seed: 63 bits.
        null_seeds: seeds that are never used: the same score with them is the null.
    """

    method: Literal["gaussian"] = "gaussian"
    unit: Literal["batch", "sequence"]
    n_sequences: int
    sigma: float
    noise: Literal["philox-standard-normal"] = "philox-standard-normal"
    noise_seed: int
    null_seeds: list[int]
