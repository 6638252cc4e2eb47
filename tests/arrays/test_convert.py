"""torch tensors in, torch tensors out, of the same memory; what would be lost is refused."""

import importlib.util

import numpy as np
import pytest

import subquad
from tests.fresh import printed

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)


def problem(seed=0, dtype="float32"):
    rng = np.random.default_rng(seed)
    Q, K, V = (rng.standard_normal(s).astype(dtype) for s in ((2, 40, 4), (2, 50, 4), (50, 3)))
    return Q / 4, K, V


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@needs_torch
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_tensors_give_what_arrays_give(torch, rates, dtype):
    arrays = problem(1, dtype)
    tensors = [torch.from_numpy(x) for x in arrays]
    mask = np.arange(50) % 3 > 0
    plain = subquad.attention(*arrays, tol=0.1, rates=rates, key_mask=mask)
    found = subquad.attention(*tensors, tol=0.1, rates=rates, key_mask=torch.from_numpy(mask))
    assert found.output.dtype == tensors[0].dtype and found.output.device == tensors[0].device
    assert np.array_equal(found.output.numpy(), plain.output)
    assert isinstance(found.certificate.row_bounds, torch.Tensor)
    assert np.array_equal(found.certificate.row_bounds.numpy(), plain.certificate.row_bounds)
    assert found.certificate.bound == plain.certificate.bound
    assert found.certificate.to_json() == plain.certificate.to_json()
    assert str(found.certificate) == str(plain.certificate)
    whole = subquad.exact_attention(*tensors)
    assert np.array_equal(whole.numpy(), subquad.exact_attention(*arrays))
    made = subquad.plan(*tensors, tol=0.1, rates=rates)
    again = made.run(*tensors)
    assert isinstance(again.output, torch.Tensor) and again.certificate.bound <= 0.1


@needs_torch
def test_strided_tensors_are_read_and_left_alone(torch, rates):
    Q, K, V = (torch.from_numpy(x) for x in problem(2))
    wide = torch.full((2, 40, 8), float("nan"))
    wide[..., ::2] = Q
    before = wide.clone()
    found = subquad.attention(wide[..., ::2], K, V.expand(2, 50, 3), tol=0.1, rates=rates)
    plain = subquad.attention(Q, K, V, tol=0.1, rates=rates)
    assert torch.equal(found.output, plain.output)
    assert torch.equal(wide.isnan(), before.isnan()) and torch.equal(wide[..., ::2], Q)


@needs_torch
def test_gradients_are_not_lost_in_silence(torch, rates):
    Q, K, V = (torch.from_numpy(x) for x in problem(3))
    K.requires_grad_()
    with pytest.raises(TypeError, match=r"`K` requires grad.*pass K\.detach\(\)"):
        subquad.attention(Q, K, V, tol=0.1, rates=rates)
    with torch.no_grad():
        one = subquad.attention(Q, K, V, tol=0.1, rates=rates)
    two = subquad.attention(Q, K.detach(), V, tol=0.1, rates=rates)
    assert torch.equal(one.output, two.output) and not one.output.requires_grad


@needs_torch
def test_what_has_no_counterpart_is_named(torch, rates):
    Q, K, V = (torch.from_numpy(x) for x in problem(4))

    def attend(*arrays, **options):
        return subquad.attention(*arrays, tol=0.1, rates=rates, **options)

    with pytest.raises(TypeError, match=r"`V` has dtype torch.bfloat16.*V\.float\(\)"):
        attend(Q, K, V.bfloat16())
    with pytest.raises(TypeError, match=r"`Q` has layout torch.sparse_coo"):
        attend(Q[0].to_sparse(), K[0], V)
    with pytest.raises(TypeError, match="`K` is a numpy.ndarray but `Q` is a torch.Tensor"):
        attend(Q, K.numpy(), V)
    with pytest.raises(TypeError, match="`key_mask` is a numpy.ndarray but `Q` is a torch.Tensor"):
        attend(Q, K, V, key_mask=np.ones(50, bool))
    with pytest.raises(ValueError, match="on different devices .*`K` meta"):
        attend(Q, K.to("meta"), V)
    with pytest.raises(TypeError, match="`Q` is on meta; the engine runs on cpu and cuda"):
        attend(*(x.to("meta") for x in (Q, K, V)))
    with pytest.raises(TypeError, match="`Q` has dtype int64; convert it"):
        attend(*(x.long() for x in (Q, K, V)))
    bad = V.clone()
    bad[3, 1] = float("nan")
    with pytest.raises(ValueError, match="`V` has 1 NaN"):
        attend(Q, K, bad)


def test_nothing_optional_is_imported_for_numpy(tmp_path):
    """With a CuPy and a torch that break on import, NumPy arrays are attended to all the same."""
    for name in ("cupy", "torch"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise RuntimeError('{name} was imported')")
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}]\n"
        "import numpy as np, subquad\n"
        "x = np.random.default_rng(0).standard_normal((30, 3)) / 3\n"
        "r = subquad.attention(x, x, x, tol=0.1, rates=subquad.TYPICAL)\n"
        "print(r.certificate.bound <= 0.1)"
    )
    assert printed(code) == "True"


@needs_torch
@pytest.mark.gpu
def test_cuda_tensors_stay_on_their_device(cp, torch, rates):
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    arrays = problem(5)
    there = [torch.from_numpy(x).cuda() for x in arrays]
    found = subquad.attention(*there, tol=1e-2, rates=rates)
    assert found.output.device == there[0].device and found.output.dtype == there[0].dtype
    plain = subquad.attention(*map(cp.asarray, arrays), tol=1e-2, rates=rates)
    assert np.array_equal(found.output.cpu().numpy(), plain.output.get())
    assert found.certificate.row_bounds.device == there[0].device
    assert found.certificate.bound == plain.certificate.bound
    mask = torch.arange(50, device="cuda") % 3 > 0
    kept = subquad.attention(*there, tol=1e-2, rates=rates, key_mask=mask)
    host = subquad.attention(*arrays, tol=1e-2, rates=rates, key_mask=mask.cpu().numpy())
    assert np.abs(kept.output.cpu().numpy() - host.output).max() <= 2e-2 * np.ptp(arrays[2])
    with pytest.raises(ValueError, match="different devices"):
        subquad.attention(there[0], there[1].cpu(), there[2], tol=0.1, rates=rates)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):  # work queued before must be seen, and work after must wait
        late = [x + 0 for x in there]
        again = subquad.attention(*late, tol=1e-2, rates=rates).output * 2
    stream.synchronize()
    assert torch.equal(again, found.output * 2)
