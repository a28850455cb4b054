"""The LitData format, the training order, the manifest and verification. Knows no experiment."""
