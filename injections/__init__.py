"""One module per experiment kind: makes items and payloads, holds no placement logic."""
