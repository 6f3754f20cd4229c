"""What all targets share: sampling, the exact score as prediction and as a plain callable."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from srk.errors import ArgumentError, ArgumentTypeError, TimeError
from srk.processes import EDM, VP, Flow, ForwardProcess, SubVP
from srk.scores import Score, as_prediction
from srk.targets import Empirical, Gaussian, GaussianMixture

TARGETS = [
    Gaussian([1.0, -1.0], [[1.0, 0.5], [0.5, 1.0]]),
    GaussianMixture([0.4, 0.6], [[-1.0, 0.0], [1.0, 0.5]], [0.2, 0.1]),
    Empirical([[0.0, 1.0], [2.0, 3.0], [1.0, -1.0]]),
]
NAMES = ["Gaussian", "GaussianMixture", "Empirical"]
each_target = pytest.mark.parametrize("target", TARGETS, ids=NAMES)


@each_target
def test_the_exact_score_is_a_prediction_that_knows_its_shape(target):
    process = VP()
    score = target.score(process)
    assert as_prediction(score) is score
    assert score.event_shape == (2,)
    assert score.bind(process) is score
    x, level = target.sample(5, process, 0.5, seed=0), process.level(0.5)
    assert torch.equal(score.denoise(x, level, process), target.denoise(x, level))
    assert score.coefficients(level) == (0.0, 1.0)
    assert torch.equal(score.score(x, level, process), target.score_at(x, level))
    flow = Flow()
    assert score.bind(flow).process is flow
    assert score.bind(flow).denoise(x, flow.level(1.0), flow).isfinite().all()


@each_target
def test_as_a_plain_callable_it_gives_the_same_denoiser_through_score(target):
    process = SubVP()
    x = target.sample(5, process, 0.5, seed=0, dtype=torch.float64)
    level = process.level(0.5)
    assert torch.allclose(
        Score(target.score(process)).denoise(x, level, process),
        target.denoise(x, level),
        rtol=1e-12,
    )


@each_target
def test_every_form_of_time_gives_the_same_score(target):
    process = VP()
    score, x = target.score(process), target.sample(5, process, 0.5, seed=0)
    exact = target.score_at(x, process.level(0.5))
    for t in (
        0.5,
        torch.tensor(0.5),
        torch.tensor([0.5]),
        torch.full((5,), 0.5),
        torch.full((5,), 0.5, dtype=torch.float64),
    ):
        assert torch.equal(score(x, t), exact)


@each_target
def test_each_sample_may_have_its_own_time(target):
    process = VP()
    score = target.score(process)
    x, t = torch.randn(4, 2), torch.tensor([0.2, 0.9, 0.2, 0.5])
    rows = torch.cat([score(x[i : i + 1], t[i]) for i in range(4)])
    assert torch.allclose(score(x, t), rows, rtol=1e-6)


def test_a_time_rounded_in_float32_is_clamped_and_a_wrong_one_refused():
    process = EDM(sigma_min=0.1, sigma_max=80.0)
    score, x = TARGETS[0].score(process), torch.ones(3, 2)
    below = torch.nextafter(torch.tensor(0.1), torch.tensor(0.0)).expand(3)
    assert torch.equal(score(x, below), score(x, 0.1))
    with pytest.raises(TimeError):
        score(x, torch.tensor(0.09))
    with pytest.raises(ArgumentError, match=r"shape \(3,\)"):
        score(x, torch.ones(4))


@each_target
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_results_follow_the_dtype_of_the_state(target, dtype):
    process, level = VP(), VP().level(0.5)
    x = target.sample(3, process, 0.5, seed=0, dtype=dtype)
    for out in (
        target.denoise(x, level),
        target.score_at(x, level),
        target.log_density(x, process, 0.5),
    ):
        assert out.dtype == dtype
        assert out.isfinite().all()
    assert torch.allclose(
        target.denoise(x, level).double(),
        target.denoise(x.double(), level),
        rtol=8 * torch.finfo(dtype).eps,
        atol=1e-6,
    )


@each_target
def test_parameters_moved_in_inference_mode_serve_autograd_later(target):
    target._moved.clear()
    x, process = torch.randn(3, 2), VP()
    with torch.inference_mode():
        target.denoise(x, process.level(0.5))
        target.log_density(x, process, 0.5)
    x.requires_grad_()
    target.log_density(x, process, 0.5).sum().backward()
    target.denoise(x, process.level(0.5)).sum().backward()
    assert x.grad.isfinite().all()


class NoReading(TorchDispatchMode):
    """Refuses every operation that would make the CPU wait for the device, or copy to it."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if any(
            word in str(function)
            for word in ("_local_scalar_dense", "nonzero", "equal.default", "lift_fresh")
        ):
            raise AssertionError(f"{function} synchronizes")
        return function(*args, **(kwargs or {}))


@each_target
def test_an_evaluation_never_reads_from_the_device(target):
    x, level = torch.ones(3, 2), VP().level(0.5)
    target.denoise(x, level)  # moves the parameters
    with NoReading():
        target.denoise(x, level)


@each_target
def test_samples_are_reproducible_and_go_where_they_are_asked(target):
    process = VP()
    a, b = (
        target.sample(4, process, 0.5, seed=7),
        target.sample(4, process, 0.5, generator=torch.Generator().manual_seed(7)),
    )
    assert torch.equal(a, b)
    assert a.shape == (4, 2)
    assert a.dtype == torch.get_default_dtype()
    assert not torch.equal(a, target.sample(4, process, 0.5, seed=8))
    assert target.sample(4, dtype=torch.float64, device="cpu").dtype == torch.float64


@each_target
def test_arguments_that_do_not_fit_are_refused(target):
    with pytest.raises(ArgumentError, match="t is given without process"):
        target.sample(3, t=0.5)
    with pytest.raises(ArgumentError, match="process is given without t"):
        target.sample(3, VP())
    with pytest.raises(ArgumentError, match="alternatives"):
        target.sample(3, seed=0, generator=torch.Generator())
    with pytest.raises(ArgumentError, match="number of samples"):
        target.sample(-1)
    with pytest.raises(ArgumentError, match=r"states have shape \(batch, 2\).*\(5, 3\)"):
        target.denoise(torch.zeros(5, 3), VP().level(0.5))
    with pytest.raises(ArgumentTypeError, match=r"torch\.Tensor"):
        target.denoise([[0.0, 1.0]], VP().level(0.5))


def test_a_nonlinear_process_has_no_exact_score():
    class Nonlinear(ForwardProcess):
        t_min, t_max = 0.0, 1.0

        def drift(self, t, x):
            return -(x**3)

        def diffusion(self, t):
            return 1.0

        def sample_prior(self, shape, *, generator=None, device=None, dtype=None):
            return torch.randn(shape)

    with pytest.raises(ArgumentTypeError, match="linear process"):
        TARGETS[0].score(Nonlinear())


@pytest.mark.gpu
@each_target
def test_on_a_gpu_results_stay_there_without_synchronization(target):
    x, level = torch.ones(3, 2, device="cuda"), VP().level(0.5)
    exact = target.denoise(x.cpu(), level)
    target.denoise(x, level)  # moves the parameters
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = target.denoise(x, level)
        Score(lambda x, t: -x * t[:, None]).denoise(x, level, VP())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert out.device == x.device
    assert torch.allclose(out.cpu(), exact, rtol=1e-5)
    assert target.sample(2, VP(), 0.5, seed=0, device="cuda").device == x.device
