"""Every message for bad input: its type, its whole text, its numbers in their places.

One row is one template; numbers in a row all differ, so that none can stand in for another.
"""

import inspect
import re

import array_api_strict
import numpy as np
import pytest

import subquad


def arrays(n=3, m=4, d=5, d_v=2, dtype=np.float64):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(s).astype(dtype) for s in ((n, d), (m, d), (m, d_v))]


def attend(Q=None, K=None, V=None, **options):
    given, usual = (Q, K, V), arrays()
    call = [y if x is None else x for x, y in zip(given, usual, strict=True)]
    return subquad.attention(*call, **{"tol": 0.1, "rates": subquad.TYPICAL} | options)


def bad_entries(shape, nans, infs):
    x = np.ones(shape)
    x.flat[:nans] = np.nan
    x.flat[nans : nans + infs] = np.inf
    return x


def sizes(**options):
    usual = {"n": 6, "d": 2, "logit_bound": 0.5, "tol": 0.1, "rates": subquad.TYPICAL}
    return subquad.plan(**usual | options)


class Nameless:
    """All the verbs of a method, but no name."""

    fit = certify = work = run = None


MASK = np.ones((3, 4), bool)
MASK[1] = False
STRICT = array_api_strict.asarray(np.ones((3, 5)))

CASES = {
    # Arrays: kind, library, dtype.
    "not an array": (
        lambda: attend(K=[[1.0]]),
        TypeError,
        "`K` is a list; pass an array, numpy.asarray(K) say.",
    ),
    "other library": (
        lambda: attend(Q=STRICT),
        TypeError,
        "`Q` is a array_api_strict._array_object.Array, which the engine does not run on yet; "
        "convert it to a NumPy array.",
    ),
    "masked array": (
        lambda: attend(Q=np.ma.masked_less(np.ones((3, 5)), 0.5)),
        TypeError,
        "`Q` is a masked array, whose mask would be lost; drop keys with `key_mask`.",
    ),
    "masked array for statistics": (
        lambda: subquad.entry_statistics(*arrays()[:2], np.ma.ones((4, 2))),
        TypeError,
        "`V` is a masked array, whose mask would be lost; pass the rows to look at, without a "
        "mask.",
    ),
    "masked mask": (
        lambda: attend(key_mask=np.ma.array([True] * 4, mask=[False, True, False, False])),
        TypeError,
        "`key_mask` is a masked array, whose mask would be lost; pass key_mask.filled(False) to "
        "drop what it masks.",
    ),
    "dtype": (
        lambda: attend(V=np.ones((4, 2), int)),
        TypeError,
        "`V` has dtype int64; convert it to float16, float32 or float64.",
    ),
    "byte order": (
        lambda: attend(V=np.ones((4, 2), ">f8")),
        TypeError,
        "`V` has dtype >f8, in the byte order of other machines; pass "
        'V.astype(V.dtype.newbyteorder("=")).',
    ),
    "mixed dtypes": (
        lambda: attend(K=np.ones((4, 5), np.float32), V=np.ones((4, 2), np.float16)),
        TypeError,
        "`Q`, `K`, `V` have dtypes float64, float32, float16; they must share one: convert the "
        "others.",
    ),
    # Shapes.
    "dimensions": (
        lambda: attend(V=np.ones(4)),
        ValueError,
        "`V` has 1 dimension(s); it needs at least two, (..., m, d_v).",
    ),
    "columns": (
        lambda: attend(K=np.ones((4, 7))),
        ValueError,
        "`K` has 7 columns but `Q` has 5: both need the head dimension d.",
    ),
    "rows": (
        lambda: attend(V=np.ones((9, 2))),
        ValueError,
        "`V` has 9 rows but `K` has 4: each key needs one value.",
    ),
    "no queries": (
        lambda: attend(Q=np.ones((0, 5))),
        ValueError,
        "`Q` has no rows (n = 0); pass at least one query.",
    ),
    "no keys": (
        lambda: attend(K=np.ones((0, 5)), V=np.ones((0, 2))),
        ValueError,
        "`K` has no rows (m = 0); softmax over no keys is undefined.",
    ),
    "no columns": (
        lambda: attend(Q=np.ones((3, 0)), K=np.ones((4, 0))),
        ValueError,
        "`Q` and `K` have no columns (d = 0); the head dimension must be positive.",
    ),
    "no value columns": (
        lambda: attend(V=np.ones((4, 0))),
        ValueError,
        "`V` has no columns (d_v = 0); pass at least one value column.",
    ),
    "leading dimensions": (
        lambda: attend(Q=np.ones((6, 3, 5)), K=np.ones((7, 4, 5))),
        ValueError,
        "the leading dimensions of `Q`, `K`, `V` do not broadcast: (6,), (7,), ().",
    ),
    "leading dimensions of a mask": (
        lambda: attend(Q=np.ones((6, 3, 5)), key_mask=np.ones((7, 4), bool)),
        ValueError,
        "the leading dimensions of `Q`, `K`, `V`, `key_mask` do not broadcast: (6,), (), (), (7,).",
    ),
    "no head": (
        lambda: attend(K=np.ones((0, 8, 5)), V=np.ones((8, 2))),
        ValueError,
        "the leading dimensions (0,) hold no head; pass at least one.",
    ),
    "not finite": (
        lambda: attend(Q=bad_entries((3, 5), 2, 4)),
        ValueError,
        "`Q` has 2 NaN and 4 infinite entries of 15; all must be finite.",
    ),
    # The mask.
    "mask dtype": (
        lambda: attend(key_mask=np.ones(4)),
        TypeError,
        "`key_mask` is float64; pass a boolean array (..., m), True where a key takes part.",
    ),
    "mask shape": (
        lambda: attend(key_mask=np.ones((2, 9), bool)),
        ValueError,
        "`key_mask` has shape (2, 9); its last dimension must be m = 4.",
    ),
    "mask drops all": (
        lambda: attend(key_mask=np.zeros(4, bool)),
        ValueError,
        "`key_mask` drops all 4 keys; keep at least one.",
    ),
    "mask drops all of a head": (
        lambda: attend(Q=np.ones((3, 3, 5)), key_mask=MASK),
        ValueError,
        "`key_mask` drops all 4 keys of head (1,); keep at least one.",
    ),
    "mask by query": (
        lambda: attend(key_mask=np.tril(np.ones((3, 4), bool))),
        ValueError,
        "`key_mask` has shape (3, 4), which makes heads that `Q`, `K`, `V` have not; it needs "
        "(4,): a mask by query is not supported.",
    ),
    "mask by query of one head": (
        lambda: attend(V=np.ones((1, 4, 2)), key_mask=np.ones((3, 4), bool)),
        ValueError,
        "`key_mask` has shape (3, 4), which makes heads that `Q`, `K`, `V` have not; it needs "
        "(4,) or leading dimensions that broadcast to (1,): a mask by query is not supported.",
    ),
    "key that takes part": (
        lambda: attend(K=bad_entries((2, 4, 5), 3, 1), key_mask=np.ones((2, 4), bool)),
        ValueError,
        "`K` has 3 NaN and 1 infinite entries of 20 of head (0,) where `key_mask` is True; all "
        "must be finite.",
    ),
    # Numbers.
    "scale": (
        lambda: attend(scale=-0.25),
        ValueError,
        "`scale` is -0.25; it must be positive and finite (None gives 1/sqrt(d)).",
    ),
    "tol": (
        lambda: attend(tol=2.5),
        ValueError,
        "`tol` is 2.5; it must be in (0, 2], in units of value_radius (half the range of a column "
        "of V): no two outputs differ by more than 2.",
    ),
    "delta": (
        lambda: attend(delta=1.5),
        ValueError,
        "`delta` is 1.5; a failure probability must be in [0, 1), 0 for always.",
    ),
    "not a real number": (
        lambda: attend(tol="1e-2"),
        TypeError,
        "`tol` is '1e-2' of type str; pass a real number.",
    ),
    "seed type": (
        lambda: attend(seed=1.5),
        TypeError,
        "`seed` is 1.5 of type float; pass None or an integer.",
    ),
    "seed": (lambda: attend(seed=-7), ValueError, "`seed` is -7; it must not be negative."),
    # Options.
    "causal": (
        lambda: attend(causal=True),
        TypeError,
        "`causal` is not supported: causal masks are not built yet, and leaving them out silently "
        "would make the certificate false.",
    ),
    "misspelt option": (
        lambda: attend(key_maks=None),
        TypeError,
        "`key_maks` is not an option: did you mean `key_mask`?",
    ),
    "dropout": (
        lambda: attend(dropout_p=0.5),
        TypeError,
        "`dropout_p` is not supported: dropout is not built yet, and leaving it out silently would "
        "make the certificate false.",
    ),
    "padding mask of too many axes": (
        lambda: attend(Q=np.ones((6, 3, 5)), key_mask=np.ones((6, 1, 1, 4), bool)),
        ValueError,
        "`key_mask` has shape (6, 1, 1, 4), with axes for heads and queries that `Q`, `K`, `V` do "
        "not have: pass key_mask[:, 0, 0], of shape (6, 4).",
    ),
    "unknown option": (
        lambda: attend(temperature=2.0),
        TypeError,
        "`temperature` is not an option: the options are tol, scale, key_mask, method, delta, "
        "allow_exact, seed, devices, rates.",
    ),
    "devices": (
        lambda: attend(devices=8),
        ValueError,
        '`devices` is 8; pass None, a list of CUDA device numbers, a list of "cpu" (one for each '
        "shard), or an initialised communicator of cupyx.distributed.",
    ),
    "allow_exact": (
        lambda: attend(allow_exact="no"),
        TypeError,
        "`allow_exact` is 'no'; pass True or False.",
    ),
    "unknown method": (
        lambda: attend(method="lstm"),
        ValueError,
        f"`method` is 'lstm'; the methods are auto, {', '.join(subquad.METHODS)}.",
    ),
    "not a method": (
        lambda: attend(method=3),
        TypeError,
        "`method` is a int without `name`, `fit`, `certify`, `work`, `run`; pass a name or an "
        "object that has name, fit, certify, work and run.",
    ),
    "a method without a name": (
        lambda: attend(method=Nameless()),
        TypeError,
        "`method` is a Nameless without `name`; pass a name or an object that has name, fit, "
        "certify, work and run.",
    ),
    "a class of methods": (
        lambda: attend(method=subquad.SupportBasis),
        TypeError,
        "`method` is the class SupportBasis; pass a name or an instance of it.",
    ),
    "exact forbidden": (
        lambda: attend(method="exact", allow_exact=False),
        ValueError,
        '`allow_exact` is False but `method` is "exact"; drop one of the two.',
    ),
    # Plans without data.
    "some arrays": (
        lambda: subquad.plan(np.ones((3, 5)), tol=0.1),
        TypeError,
        "plan() got 1 of `Q`, `K`, `V` and no sizes: give all three arrays and no sizes, or no "
        "array and n, d, logit_bound.",
    ),
    "sizes missing": (
        lambda: subquad.plan(n=6, tol=0.1),
        TypeError,
        "plan() without data needs n, d and logit_bound; missing: d, logit_bound.",
    ),
    "logit bound": (
        lambda: sizes(logit_bound=-0.5),
        ValueError,
        "`logit_bound` is -0.5; it must be finite and not negative.",
    ),
    "size type": (
        lambda: sizes(d_v=2.5),
        TypeError,
        "`d_v` is 2.5 of type float; a size is an integer.",
    ),
    "size": (lambda: sizes(m=-3), ValueError, "`m` is -3; a size is at least 1 and at most 2**53."),
    "buckets": (
        lambda: subquad.MultiThreshold(buckets=-2),
        ValueError,
        "`buckets` is -2; pass an integer of at least 0, or None.",
    ),
    "criterion": (
        lambda: subquad.SupportBasis(criterion="rank"),
        ValueError,
        "`criterion` is 'rank'; the criteria are both, norm, entry.",
    ),
    "threshold": (
        lambda: subquad.SupportBasis(threshold=-0.75),
        ValueError,
        "`threshold` is -0.75; it must be a number of at least 0.",
    ),
    "other shape for a plan": (
        lambda: subquad.plan(*arrays(), tol=0.1, rates=subquad.TYPICAL).run(*arrays(n=8, d=6)),
        ValueError,
        "the plan is for (lead, n, d, d_v) = ((), 3, 5, 2), the data have ((), 8, 6, 2): "
        "plan again.",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_message(name):
    call, error, text = CASES[name]
    with pytest.raises(error, match=f"^{re.escape(text)}$") as caught:
        call()
    assert type(caught.value) is error
    assert caught.value.__cause__ is None


def template(text):
    """Return the message without its numbers, names and quoted values."""
    return re.sub(r"`\w+`|'[^']*'|-?\d+(\.\d+)?|float\d*", "_", text)


def test_there_are_many_distinct_templates():
    assert len({template(text) for *_, text in CASES.values()}) == len(CASES) >= 25


@pytest.mark.parametrize(
    "option", ["is_causal", "mask", "attn_mask", "bias", "attn_bias", "dropout_p", "enable_gqa"]
)
def test_what_is_not_built_is_refused_by_name(option):
    for call in (attend, sizes):
        with pytest.raises(TypeError, match=f"^`{option}` is not supported: .* not built yet"):
            call(**{option: None})


def test_a_criterion_is_named():
    for method, names in (
        (subquad.SupportBasis, "both, norm, entry"),
        (subquad.MultiThreshold, "norm, entry"),
    ):
        with pytest.raises(ValueError, match=f"^`criterion` is None; the criteria are {names}.$"):
            method(criterion=None)
    assert subquad.SupportBasis().criteria == subquad.SupportBasis(criterion="both").criteria
    assert subquad.SupportBasis(criterion="entry").criteria == ("entry",)


@pytest.mark.parametrize(
    "call, options",
    [
        (subquad.attention, "tol scale key_mask method delta allow_exact seed devices rates"),
        (subquad.exact_attention, "scale key_mask"),
        (
            subquad.plan,
            "tol n m d d_v logit_bound dtype scale key_mask method delta allow_exact seed devices "
            "rates",
        ),
    ],
)
def test_signatures_name_every_option(call, options):
    """So that a type checker sees a misspelt one; at the call, the nearest name is told."""
    found = inspect.signature(call).parameters.values()
    assert [x.name for x in found if x.kind is not x.POSITIONAL_ONLY] == options.split()
    assert all(x.kind in (x.POSITIONAL_ONLY, x.KEYWORD_ONLY) for x in found)
    with pytest.raises(TypeError, match="^`kmask` is not an option: did you mean `key_mask`[?]$"):
        call(*arrays(), kmask=None)
    with pytest.raises(TypeError, match="^`causal` is not supported: .* not built yet"):
        call(*arrays(), causal=True)
    with pytest.raises(TypeError, match=f"the options are {options.replace(' ', ', ')}.$"):
        call(*arrays(), temperature=1.0)


@pytest.mark.parametrize(
    "given, meant",
    [
        ("maks", "key_mask"),
        ("kmask", "key_mask"),
        ("padding_mask", "key_mask"),
        ("scal", "scale"),
        ("exact", "allow_exact"),
        ("device", "devices"),
        ("metod", "method"),
    ],
)
def test_a_misspelt_option_is_guessed(given, meant):
    with pytest.raises(TypeError, match=f"^`{given}` is not an option: did you mean `{meant}`[?]$"):
        attend(**{given: None})
    assert meant in inspect.signature(subquad.attention).parameters


@pytest.mark.parametrize("tol", [0.0, -1.0, float("nan"), float("inf"), 2.0000001])
def test_tol_out_of_range(tol):
    with pytest.raises(ValueError, match=re.escape(f"`tol` is {tol:g}; it must be in (0, 2]")):
        attend(tol=tol)


@pytest.mark.parametrize("value", [True, 1j, None, np.array([1.0, 2.0]), np.bool_(True)])
def test_tol_is_a_real_number(value):
    with pytest.raises(TypeError, match="^`tol` is .*; pass a real number.$"):
        attend(tol=value)


@pytest.mark.parametrize("value", [np.float32(0.5), np.int64(1), 1])
def test_any_real_number_will_do(value):
    assert attend(tol=value).certificate.bound <= 1.0


@pytest.mark.parametrize("mask", [np.ma.masked_all(4, bool), np.ma.array([True] * 4)])
def test_a_masked_mask_is_refused_whatever_it_masks(mask):
    for call in (attend, lambda **mask: subquad.exact_attention(*arrays(), **mask)):
        with pytest.raises(TypeError, match="^`key_mask` is a masked array"):
            call(key_mask=mask)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_statistics_refuse_masked_arrays(place):
    given = arrays()
    given[place] = np.ma.masked_less(given[place], 0.0)
    with pytest.raises(TypeError, match=f"^`{'QKV'[place]}` is a masked array"):
        subquad.entry_statistics(*given)


def test_the_first_bad_argument_is_named():
    """Q before K before V, and kinds before shapes before entries."""
    with pytest.raises(TypeError, match="`Q` is a list"):
        attend(Q=[1.0], K=[1.0])
    with pytest.raises(ValueError, match="`K` has 1 dimension"):
        attend(K=np.array([np.nan]))


def test_every_way_in_checks_alike():
    Q, K, V = arrays()
    for call in (
        lambda K: subquad.exact_attention(Q, K, V),
        lambda K: subquad.plan(Q, K, V, tol=0.1, rates=subquad.TYPICAL),
        lambda K: subquad.plan(Q, Q[:1], V[:1], tol=0.1, rates=subquad.TYPICAL).run(Q, K, V),
    ):
        with pytest.raises(ValueError, match="`K` has 7 columns but `Q` has 5"):
            call(np.ones((4, 7)))
