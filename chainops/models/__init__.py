"""Chat models, embeddings, tokens, prices, and one judgement of what went wrong with a model."""
