"""A real but tiny sentence-transformers model, and a folder for compiled ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when the hub's library is imported

_WORDS = ("the", "cat", "sat", "on", "a", "mat", "dog", "ran", "far", "away", "from", "home", "what", "is", "it")


def write_tiny_model(folder: Path, *, seed: int = 0) -> Path:
    """A BERT of two layers and 16 numbers with weights drawn from `seed`, as sentence-transformers saves it."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    raw = folder.with_name(folder.name + "-raw")
    raw.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS, "##s", "##ed", "."]
    (raw / "vocab.txt").write_text("\n".join(words), "utf-8")
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(raw)
    BertTokenizerFast(str(raw / "vocab.txt")).save_pretrained(raw)
    body = Transformer(str(raw), max_seq_length=32)
    SentenceTransformer(modules=[body, Pooling(16, pooling_mode="mean")], device="cpu").save(str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture
def model_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for compiled models."""
    monkeypatch.setenv("CHAINOPS_MODEL_HOME", str(tmp_path / "models"))
    return tmp_path / "models"
