"""Who spoke when, from frame scores and embeddings: one file a stage, over plain arrays."""
