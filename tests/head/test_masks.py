"""Masks of keys: what is dropped has no say, whatever it holds; what takes part must be finite."""

import numpy as np
import pytest

import subquad
from tests import oracle
from tests.methods.table import WITH_AUTO, over

LEADS = {
    "one head": ((), (), (), ()),
    "masks differ, K and V shared": ((3,), (), (), (3,)),
    "masks differ by two axes": ((2, 1), (1, 3), (3,), (2, 3)),
    "one mask, V shared": ((2,), (2,), (), ()),
}


def problem(name, dtype="float64", n=20, m=50, d=4, d_v=3):
    """Return Q, K, V of the given leading dimensions and masks that differ from head to head."""
    rng = np.random.default_rng(len(name))
    q, k, v, mask = LEADS[name]
    Q, K, V = (
        rng.standard_normal((*lead, *shape)).astype(dtype)
        for lead, shape in ((q, (n, d)), (k, (m, d)), (v, (m, d_v)))
    )
    kept = rng.random((*mask, m)) < 0.6
    kept[..., 0], kept[..., m - 1] = True, False  # dropped everywhere: the last
    return Q / 2, K, V, kept


def dropped_everywhere(x, kept):
    """Return where the keys of x (..., m, columns) take part in no head that uses them."""
    used, lead = np.zeros(x.shape[:-1], bool), np.broadcast_shapes(x.shape[:-2], kept.shape[:-1])
    for index in np.ndindex(*lead):
        own = tuple(
            0 if size == 1 else i
            for i, size in zip(index[len(index) - x.ndim + 2 :], x.shape[:-2], strict=True)
        )
        used[own] |= np.broadcast_to(kept, (*lead, kept.shape[-1]))[index]
    return ~used


def filled(x, kept, value):
    x = x.copy()
    x[dropped_everywhere(x, kept)] = value
    return x


@pytest.mark.parametrize("name", LEADS)
@over(WITH_AUTO)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dropped_keys_may_hold_anything(name, row, dtype, rates):
    """The same bits, output and bounds, whatever the keys hold that no head uses."""
    Q, K, V, kept = problem(name, dtype)
    options = {"tol": 0.5, "method": row.method, "rates": rates, "key_mask": kept, "scale": 0.1}
    plain = subquad.attention(Q, K, V, **options)
    for k, v in ((np.nan, np.nan), (np.inf, -np.inf), (np.finfo(dtype).max, 0.0)):
        found = subquad.attention(Q, filled(K, kept, k), filled(V, kept, v), **options)
        assert np.array_equal(found.output, plain.output)
        assert np.array_equal(found.certificate.row_bounds, plain.certificate.row_bounds)
    for index, *head in oracle.heads(Q, filled(K, kept, np.nan), filled(V, kept, np.nan), kept):
        errors = oracle.row_errors(found.output[index], *head, 0.1)
        assert np.all(errors <= found.certificate.row_bounds[index])


def test_every_door_drops_them(rates):
    Q, K, V, kept = problem("masks differ by two axes")
    bad = filled(K, kept, np.nan), filled(V, kept, np.inf)
    exact = subquad.exact_attention(Q, K, V, key_mask=kept)
    assert np.array_equal(subquad.exact_attention(Q, *bad, key_mask=kept), exact)
    made = subquad.plan(Q, *bad, tol=0.1, rates=rates, key_mask=kept)
    plain = made.run(Q, K, V, key_mask=kept).output
    assert np.array_equal(made.run(Q, *bad, key_mask=kept).output, plain)


def test_on_shards_too(rates):
    Q, K, V, kept = problem("masks differ, K and V shared")
    options = {"tol": 0.1, "rates": rates, "key_mask": kept, "devices": ["cpu"] * 3}
    plain = subquad.attention(Q, K, V, **options).output
    K, V = filled(K, kept, np.nan), filled(V, kept, np.nan)
    assert np.array_equal(subquad.attention(Q, K, V, **options).output, plain)
    K[0, 1] = np.nan  # the first key takes part
    with pytest.raises(ValueError, match=r"^`K` has 1 NaN and 0 infinite .* of head \(0,\) where"):
        subquad.attention(Q, K, V, **options)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("method", ["auto", "exact"])
@pytest.mark.parametrize("side", [1, 2])
def test_a_key_of_one_head_is_enough(side, method, value, rates):
    """K and V are shared and the masks differ: an entry is refused if any head uses its key."""
    arrays = problem("masks differ, K and V shared")
    kept = arrays[3]
    uses = kept.sum(axis=0)
    assert {0, 1, 2, 3} <= set(uses)
    for key in range(kept.shape[1]):
        changed = [x.copy() for x in arrays[:3]]
        changed[side][key, -1] = value
        call = {"tol": 0.5, "method": method, "rates": rates, "key_mask": kept}
        if uses[key] == 0:
            assert np.isfinite(subquad.attention(*changed, **call).output).all()
            continue
        head = int(np.argmax(kept[:, key]))
        with pytest.raises(ValueError, match="`key_mask` is True; all must be finite") as caught:
            subquad.attention(*changed, **call)
        assert str(caught.value).startswith(f"`{'QKV'[side]}` has ")
        assert f" of head ({head},) where" in str(caught.value)


def test_a_query_must_be_finite_whatever_the_mask(rates):
    Q, K, V, kept = problem("one mask, V shared")
    Q[1, 3, 2] = np.nan
    with pytest.raises(ValueError, match="^`Q` has 1 NaN and 0 infinite entries of 160; all"):
        subquad.attention(Q, K, V, tol=0.5, rates=rates, key_mask=kept)


def test_a_mask_makes_no_heads(rates):
    """(n, m) for one head is a mask by query; where Q, K or V has the heads, it is one by head."""
    Q, K, V, _ = problem("one head")
    lower = np.tril(np.ones((20, 50), bool))
    for shapes in ((Q, K, V), (Q[None], K, V), (Q, K, V[None, None])):
        for call in (subquad.exact_attention, lambda *x, **o: subquad.plan(*x, tol=0.5, **o)):
            with pytest.raises(ValueError, match="a mask by query is not supported"):
                call(*shapes, key_mask=lower)
    heads = np.broadcast_to(Q, (20, 20, 4))
    assert subquad.exact_attention(heads, K, V, key_mask=lower).shape == (20, 20, 3)
    assert subquad.exact_attention(heads, K, V, key_mask=lower[:1]).shape == (20, 20, 3)


@pytest.mark.parametrize(
    "lead, mask", [((), (1,)), ((3,), (3, 1)), ((2, 3), (2, 1, 1)), ((2, 3), (2, 3, 1))]
)
def test_a_mask_of_scores_has_an_axis_of_one_query(lead, mask, rates):
    rng = np.random.default_rng(1)
    Q, K, V = (rng.uniform(-1.0, 1.0, (*lead, n, 3)) for n in (5, 7, 7))
    kept = rng.random((*mask, 7)) < 0.6
    kept[..., 0] = True
    plain = kept[..., 0, :]
    for call in (
        subquad.exact_attention,
        lambda *x, **o: subquad.attention(*x, tol=0.5, rates=rates, **o).output,
        lambda *x, **o: subquad.plan(*x, tol=0.5, rates=rates, **o).run(*x, **o).output,
    ):
        assert np.array_equal(call(Q, K, V, key_mask=kept), call(Q, K, V, key_mask=plain))
        assert not np.array_equal(call(Q, K, V, key_mask=kept), call(Q, K, V))
    none = kept.copy()
    none[-1] = False
    shown = r"key_mask` drops all 7 keys( of head \(.*\))?; keep"
    with pytest.raises(ValueError, match=shown):
        subquad.exact_attention(Q, K, V, key_mask=none)


def test_a_mask_of_scores_by_query_is_refused(rates):
    Q, K, V = (np.ones((2, 3, n, 4)) for n in (5, 7, 7))
    for shape in ((2, 1, 5, 7), (2, 3, 5, 7), (1, 1, 5, 7)):
        with pytest.raises(ValueError, match="a mask by query is not supported|do not broadcast"):
            subquad.attention(Q, K, V, tol=0.5, rates=rates, key_mask=np.ones(shape, bool))


def test_tensors(rates):
    torch = pytest.importorskip("torch")
    Q, K, V, kept = problem("masks differ, K and V shared")
    options = {"tol": 0.5, "rates": rates, "key_mask": torch.from_numpy(kept)}
    plain = subquad.attention(*map(torch.from_numpy, (Q, K, V)), **options).output
    K, V = filled(K, kept, np.nan), filled(V, kept, np.nan)
    found = subquad.attention(*map(torch.from_numpy, (Q, K, V)), **options).output
    assert torch.equal(found, plain)
