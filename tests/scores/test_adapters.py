"""Adapters on Gaussian data, where everything a network can predict is known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import srk
from srk.errors import (
    ArgumentError,
    ArgumentTypeError,
    IncompatibleError,
    ScoreError,
    UnknownNameError,
)
from srk.processes import EDM, OU, VE, VP, Flow, Level, SubVP, VPCosine, VPDiscrete
from srk.scores import (
    Data,
    EDMDenoiser,
    FlowVelocity,
    NoisePrediction,
    Prediction,
    Score,
    Velocity,
    as_prediction,
)
from srk.targets import Gaussian

MEAN, VARIANCE = 0.7, 0.3
PROCESSES = [
    VP(),
    VE(),
    EDM(),
    SubVP(),
    OU(),
    Flow(t_max=0.999),
    VPCosine(t_max=0.999),
    VPDiscrete(),
]
ADAPTERS = [Score, NoisePrediction, Data, Velocity, FlowVelocity, EDMDenoiser]


def posterior(x, alpha, sigma):
    """E[x0 | x] and E[eps | x] for data N(MEAN, VARIANCE)."""
    z = (x - alpha * MEAN) / (alpha**2 * VARIANCE + sigma**2)
    return MEAN + alpha * VARIANCE * z, sigma * z


def said(adapter, x, alpha, sigma):
    """What a perfect network of this adapter says at the level (alpha, sigma), by definition."""
    data, noise = posterior(x, alpha, sigma)
    if adapter is Score:
        return -noise / sigma
    if adapter is NoisePrediction:
        return noise
    if adapter is Velocity:
        return alpha * noise - sigma * data
    if adapter is FlowVelocity:
        return noise - data
    return data


def network_of(adapter, process):
    """A perfect network that was trained with `process` and asks it for its levels."""

    def network(x, t):
        if adapter is EDMDenoiser:
            return said(adapter, x, 1.0, float(t[0]))
        level = process.level(float(t[0]))
        return said(adapter, x, level.alpha, level.sigma)

    return network


def states(process, t):
    return Gaussian(MEAN, VARIANCE, event_shape=(3,)).sample(
        20, process, t, seed=0, dtype=torch.float64
    )


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process.name)
def test_every_adapter_gives_the_exact_denoiser_in_every_process(adapter, process):
    prediction = adapter(network_of(adapter, process)).bind(process)
    for fraction in (0.02, 0.3, 0.7, 1.0):
        level = process.level(process.t_min + fraction * (process.t_max - process.t_min))
        x = states(process, level.t)
        exact, _ = posterior(x, level.alpha, level.sigma)
        out = prediction.denoise(x, level, process)
        assert out.shape == x.shape
        assert out.dtype == x.dtype
        assert (out - exact).abs().max() < 1e-14 * (
            10 + level.r
        )  # < 1e-12 but for r > 90, where x/alpha cancels
        a, b = prediction.coefficients(level)
        assert (a * x + b * prediction.output(x, level, process) - exact).abs().max() < 1e-14 * (
            10 + level.r
        )


@pytest.mark.parametrize("adapter", [Score, NoisePrediction, Data, Velocity, FlowVelocity])
@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process.name)
def test_a_network_of_a_variance_preserving_process_serves_every_process(adapter, process):
    home = VP(t_min=1e-9)
    prediction = adapter(
        network_of(adapter, home), input_scale="vp", time=lambda level: home.time(level.lam)
    )
    level = process.level_at(-0.3)
    x = states(process, level.t)
    assert (
        prediction.denoise(x, level, process) - posterior(x, level.alpha, level.sigma)[0]
    ).abs().max() < 1e-10


@pytest.mark.parametrize("adapter", [Score, NoisePrediction, Data, Velocity, FlowVelocity])
def test_a_flow_network_serves_another_process_with_the_flow_scale_and_time(adapter):
    prediction = adapter(network_of(adapter, Flow()), input_scale="flow", time="flow")
    level = EDM().level(3.0)
    x = states(EDM(), 3.0)
    assert (
        prediction.denoise(x, level, EDM()) - posterior(x, level.alpha, level.sigma)[0]
    ).abs().max() < 1e-12


@pytest.mark.parametrize("adapter", [Score, NoisePrediction, Velocity, EDMDenoiser])
@pytest.mark.parametrize("scale", ["x", "u", "vp"])
def test_the_score_of_an_adapter_is_the_score_of_the_process(adapter, scale):
    process = SubVP()
    level = process.level(0.4)
    k = {"x": 1.0, "u": 1 / level.alpha, "vp": 1 / math.hypot(level.alpha, level.sigma)}[scale]
    prediction = adapter(
        lambda x, t: said(adapter, x, k * level.alpha, k * level.sigma), input_scale=scale
    )
    x = states(process, level.t)
    exact = -posterior(x, level.alpha, level.sigma)[1] / level.sigma
    assert (prediction.score(x, level, process) - exact).abs().max() < 1e-12


def test_the_score_of_a_score_network_needs_no_alpha_and_sigma():
    """So a nonlinear process, which has none, can use it."""
    level = Level(t=0.5, alpha=math.nan, sigma=math.nan, lam=math.nan)
    x = torch.ones(2, 1)
    assert torch.equal(Score(lambda x, t: -x * t[:, None]).score(x, level, VP()), -0.5 * x)


@pytest.mark.parametrize("adapter", [Data, Velocity, FlowVelocity])
def test_the_denoiser_at_alpha_zero_is_exact_where_it_is_determined(adapter):
    process = Flow()
    x = states(process, 1.0)
    out = adapter(network_of(adapter, process)).denoise(x, process.level(1.0), process)
    assert (out - MEAN).abs().max() < 1e-14


@pytest.mark.parametrize("adapter", [Score, NoisePrediction])
def test_score_and_noise_at_alpha_zero_are_refused_before_the_network_runs(adapter):
    def network(x, t):
        raise AssertionError("called")

    with pytest.raises(
        IncompatibleError, match=r"alpha is 0.*srk\.Velocity.*srk\.Flow\(t_max=0\.999\)"
    ):
        adapter(network).denoise(torch.ones(1, 1), Flow().level(1.0), Flow())


def test_an_edm_network_at_alpha_zero_is_refused_because_sigma_is_infinite():
    with pytest.raises(IncompatibleError, match=r"is inf at t = 1\.0, where alpha = 0"):
        EDMDenoiser(lambda x, t: x).denoise(torch.ones(1, 1), Flow().level(1.0), Flow())


class Recorder:
    """A network that remembers what it was given."""

    def __call__(self, x, t, **kwargs):
        self.x, self.t, self.kwargs = x, t, kwargs
        return torch.zeros_like(x)


@pytest.mark.parametrize(
    ("unit", "process", "t", "value"),
    [
        ("t", VP(), 0.25, 0.25),
        ("sigma", Flow(), 0.75, 3.0),
        ("log-snr", EDM(), 2.0, -2 * math.log(2.0)),
        ("half-log-snr", EDM(), 2.0, -math.log(2.0)),
        ("flow", EDM(), 3.0, 0.75),
        ("index", VPDiscrete(), 417.3, 417.3),
        (lambda level: 1 - level.t, Flow(), 0.25, 0.75),
    ],
    ids=["t", "sigma", "log-snr", "half-log-snr", "flow", "index", "function"],
)
def test_time_arrives_in_the_unit_asked_for_as_one_number_per_sample(unit, process, t, value):
    network = Recorder()
    level = process.level(t)
    for dtype in (torch.float32, torch.float64):
        Data(network, time=unit, time_scale=10.0).denoise(
            torch.zeros(5, 2, 3, dtype=dtype), level, process
        )
        assert network.t.shape == (5,)
        assert network.t.dtype == dtype
        assert torch.allclose(
            network.t, torch.full((5,), 10 * value, dtype=dtype), rtol=2 * torch.finfo(dtype).eps
        )


def test_the_training_index_of_a_continuous_process_counts_from_zero():
    network = Recorder()
    prediction = Data(network, time="index", num_timesteps=1000)
    for process, t, index in [
        (VP(), 1.0, 999.0),
        (VP(t_max=0.5), 0.5, 499.5),
        (Flow(t_max=0.999), 0.5, 499.5),
        (OU(horizon=4.0), 2.0, 499.5),
    ]:
        prediction.bind(process).denoise(torch.zeros(2, 1), process.level(t), process)
        assert network.t.tolist() == [index, index]


def test_a_rounded_index_is_long():
    network = Recorder()
    Data(network, time="index-rounded").denoise(
        torch.zeros(2, 1), VPDiscrete().level(416.6), VPDiscrete()
    )
    assert network.t.dtype == torch.long
    assert network.t.tolist() == [417, 417]


def test_an_index_without_a_meaning_is_refused_when_bound():
    with pytest.raises(IncompatibleError, match=r"num_timesteps=1000"):
        NoisePrediction(lambda x, t: x, time="index").bind(VP())


def test_the_network_gets_its_conditions_and_its_scaled_input():
    network = Recorder()
    condition = torch.arange(4)
    Data(network, input_scale=lambda level: 2.0, model_kwargs={"y": condition}).denoise(
        torch.ones(4, 1), VP().level(0.5), VP()
    )
    assert network.kwargs["y"] is condition
    assert torch.equal(network.x, torch.full((4, 1), 2.0))


@pytest.mark.parametrize(
    ("state", "network_dtype", "time_dtype"),
    [
        (torch.float32, torch.bfloat16, torch.float32),
        (torch.float64, torch.float32, torch.float32),
        (torch.float64, torch.float16, torch.float32),
        (torch.float32, torch.float64, torch.float64),
        (torch.bfloat16, None, torch.float32),
    ],
)
def test_network_dtype_casts_there_and_back(state, network_dtype, time_dtype):
    network = Recorder()
    out = NoisePrediction(network, network_dtype=network_dtype).denoise(
        torch.ones(2, 1, dtype=state), VP().level(0.5), VP()
    )
    assert network.x.dtype == (network_dtype or state)
    assert network.t.dtype == time_dtype
    assert out.dtype == state


def test_half_of_the_channels_is_kept_for_a_network_that_learns_the_variance():
    x = torch.arange(96.0).reshape(2, 3, 4, 4)
    learned = Data(
        lambda x, t: torch.cat([x, torch.full_like(x, math.nan)], 1), channels="first-half"
    )
    assert torch.equal(learned.denoise(x, VP().level(0.5), VP()), x)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda x, t: x.sum(1), r"shape \(4,\) for a state of shape \(4, 3\): axes are missing"),
        (
            lambda x, t: torch.cat([x, x], 1),
            r"shape \(4, 6\).*twice the channels.*srk\.NoisePrediction\(network, "
            r"channels='first-half'\)",
        ),
        (lambda x, t: x[:, :2], r"shape \(4, 2\) for a state of shape \(4, 3\)"),
        (
            lambda x, t: x.double(),
            r"torch\.float64 for a state of torch\.float32.*network_dtype=torch\.float64",
        ),
        (lambda x, t: x.long(), r"torch\.int64.*real floating-point"),
        (lambda x, t: x.to(torch.complex64), r"torch\.complex64.*real floating-point"),
        (lambda x, t: x.to("meta"), r"on meta for a state on cpu"),
        (lambda x, t: None, r"returned NoneType, not a tensor"),
        (
            lambda x, t: (x,),
            r"returned tuple.*srk\.NoisePrediction\(lambda x, t: network\(x, t\)\[0\]\)",
        ),
        (
            lambda x, t: type("Output", (), {"sample": x})(),
            r"returned Output.*network\(x, t\)\.sample\)",
        ),
    ],
)
def test_an_output_that_is_not_like_the_state_is_refused_with_the_cure(network, message):
    with pytest.raises(ScoreError, match=message):
        NoisePrediction(network).denoise(torch.ones(4, 3), VP().level(0.5), VP())


def test_channels_that_cannot_be_halved_are_refused():
    with pytest.raises(ScoreError, match="cannot be halved"):
        NoisePrediction(lambda x, t: x, channels="first-half").denoise(
            torch.ones(4, 3), VP().level(0.5), VP()
        )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"time": "sigmas"}, UnknownNameError, "Did you mean 'sigma'"),
        ({"time": 3}, ArgumentTypeError, "function of the level"),
        ({"input_scale": "vpp"}, UnknownNameError, "Did you mean 'vp'"),
        ({"channels": "second"}, ArgumentError, "first-half"),
        ({"num_timesteps": 0}, ArgumentError, "num_timesteps=1000"),
        ({"network_dtype": torch.int64}, ArgumentTypeError, "bfloat16"),
        ({"network_dtype": "float32"}, ArgumentTypeError, "bfloat16"),
    ],
)
def test_wrong_options_are_refused_when_the_adapter_is_made(options, error, message):
    with pytest.raises(error, match=message):
        NoisePrediction(lambda x, t: x, **options)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"time": lambda level: torch.tensor(1.0)}, ArgumentTypeError),
        ({"time": lambda level: math.inf}, IncompatibleError),
        ({"input_scale": lambda level: -1.0}, ArgumentError),
    ],
)
def test_functions_of_the_level_must_return_usable_floats(options, error):
    with pytest.raises(error):
        Data(lambda x, t: x, **options).denoise(torch.ones(1, 1), VP().level(0.5), VP())


def test_states_that_are_no_batches_of_real_numbers_are_refused():
    for x in (torch.tensor(1.0), torch.ones(2, 2, dtype=torch.long), [[1.0]]):
        with pytest.raises(ArgumentTypeError, match="state"):
            Data(lambda x, t: x).denoise(x, VP().level(0.5), VP())


def test_as_prediction_wraps_a_callable_and_refuses_the_rest():
    network = torch.nn.Identity()
    assert isinstance(as_prediction(network), Score)
    data = Data(network)
    assert as_prediction(data) is data
    with pytest.raises(ArgumentTypeError, match=r"srk\.NoisePrediction\(network\)"):
        as_prediction(NoisePrediction)
    with pytest.raises(ArgumentTypeError, match=r"target\.score\(process\)"):
        as_prediction(Gaussian(0.0))
    for wrong in (None, 3, "score", torch.ones(1)):
        with pytest.raises(ArgumentTypeError, match=r"\(x, t\) -> score"):
            as_prediction(wrong)


def test_a_prediction_of_ones_own_needs_only_denoise():
    class Zero(Prediction):
        def denoise(self, x, level, process):
            return torch.zeros_like(x)

    own, x, level = Zero(), torch.ones(2, 1), VP().level(0.5)
    assert as_prediction(own) is own
    assert own.bind(VP()) is own
    assert own.event_shape is None
    assert own.coefficients(level) == (0.0, 1.0)
    assert torch.equal(own.output(x, level, VP()), torch.zeros(2, 1))
    assert torch.allclose(own.score(x, level, VP()), -x / level.sigma**2)


def test_adapters_are_frozen_and_print_their_options():
    prediction = NoisePrediction(
        torch.nn.Identity(), time="sigma", event_shape=[2], model_kwargs={"y": torch.ones(3)}
    )
    assert repr(prediction) == "NoisePrediction(Identity, time='sigma', event_shape=(2,))"
    with pytest.raises(AttributeError):
        prediction.time = "t"
    assert repr(EDMDenoiser(torch.nn.Identity())) == "EDMDenoiser(Identity)"


class NoReading(TorchDispatchMode):
    """Refuses every operation that would make the CPU wait for the device, or copy to it."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if any(
            word in str(function)
            for word in ("_local_scalar_dense", "nonzero", "equal.default", "lift_fresh")
        ):
            raise AssertionError(f"{function} synchronizes")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_evaluation_never_reads_from_the_device(adapter):
    prediction = adapter(
        lambda x, t: x * t[:, None],
        input_scale="vp",
        time="half-log-snr",
        network_dtype=torch.float64,
    )
    x = torch.ones(3, 2)
    with NoReading():
        prediction.denoise(x, VP().level(0.5), VP())


def test_gradients_flow_through_the_denoiser():
    x = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(3, 2).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: Score(lambda x, t: -(x**3)).denoise(x, VP().level(0.3), VP()), (x,)
    )


def test_the_old_name_of_the_noise_prediction_warns() -> None:
    with pytest.warns(DeprecationWarning, match=r"srk\.NoisePrediction"):
        assert srk.Noise is srk.NoisePrediction  # type: ignore[attr-defined]
    with pytest.warns(DeprecationWarning, match=r"srk\.NoisePrediction"):
        from srk.scores import Noise
    assert Noise is srk.NoisePrediction
    with pytest.raises(AttributeError, match="no attribute 'Nosie'"):
        srk.Nosie  # noqa: B018
