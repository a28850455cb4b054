"""One scorer per experiment kind: token ids from the manifest in, a score per item out."""
