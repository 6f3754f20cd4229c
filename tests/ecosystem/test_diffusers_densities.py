"""Log-densities of the scheduler's steps, against the code that trains samplers by them."""

from __future__ import annotations

import math

import pytest
import torch
from repository import script

diffusers = pytest.importorskip("diffusers")

import srk  # noqa: E402
from srk.ecosystem.diffusers import SRKScheduler  # noqa: E402  # needs diffusers
from srk.errors import ArgumentError, IncompatibleError  # noqa: E402

EXACT = 1e-10
FLOW = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
DDIM = diffusers.DDIMScheduler(clip_sample=False, beta_schedule="scaled_linear")


def velocity(x: torch.Tensor, t: float, w: torch.Tensor) -> torch.Tensor:
    return torch.tanh(w * x) * (1.0 - 0.5 * t) + 0.1


def scheduler(solver: str, config=FLOW.config, steps: int = 6, **options) -> SRKScheduler:
    made = SRKScheduler.from_config(config, solver=solver, **options)
    made.set_timesteps(steps)
    return made


def rollout(made: SRKScheduler, x: torch.Tensor, w: torch.Tensor, seed: int = 0) -> list:
    """All that a run sees, says and hands out: (timestep, sample, output of step)."""
    generator = torch.Generator().manual_seed(seed)
    seen = []
    for t in made.timesteps:
        said = velocity(x, float(t) / 1000, w)
        out = made.step(said, t, x, generator=generator, return_log_prob=True)
        seen.append((t, x, out))
        x = out.prev_sample
    return seen


def start(shape=(3, 2, 4)) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return x, torch.tensor(0.7, dtype=torch.float64, requires_grad=True)


def test_flow_grpo_step() -> None:
    """Mean, standard deviation and log-density of Flow-GRPO's step, its last one left out."""
    a, (x, w) = 0.7, start()
    made = scheduler("euler-maruyama", eta=srk.eta.flow_grpo(a))
    seen = rollout(made, x, w)
    # sigmas in float64: the scheduler's own are rounded
    levels = [entry.level.sigma for entry in made._entries]
    for i, (t, x, out) in enumerate(seen[:-1]):
        s, after = levels[i], levels[i + 1]
        dt, v = after - s, velocity(x, float(t) / 1000, w)
        std = math.sqrt(s / (1 - (levels[1] if s == 1.0 else s))) * a
        mean = x * (1 + std**2 / (2 * s) * dt) + v * (1 + std**2 * (1 - s) / (2 * s)) * dt
        std *= math.sqrt(-dt)
        terms = -((out.prev_sample.detach() - mean) ** 2) / (2 * std**2)
        terms = terms - math.log(std) - math.log(math.sqrt(2 * math.pi))
        assert (out.prev_sample_mean - mean).abs().max() < EXACT
        assert (out.std - std).abs().max() < EXACT and out.std.shape == (3, 1, 1)
        assert (out.log_prob_mean - terms.mean((1, 2))).abs().max() < EXACT
        assert (out.log_prob - terms.sum((1, 2))).abs().max() < 8 * EXACT
        theirs, ours = (
            torch.autograd.grad(value.sum(), w)[0]
            for value in (terms.mean((1, 2)), out.log_prob_mean)
        )
        assert abs(theirs - ours) < EXACT * (1 + abs(theirs))
    last = seen[-1][2]
    assert last.log_prob is None and float(last.std.abs().max()) == 0.0
    assert torch.allclose(last.prev_sample, last.prev_sample_mean, rtol=1e-12)


def test_dance_and_cps_steps() -> None:
    """DanceGRPO's step, and that of coefficients-preserving sampling."""
    x, w = start()
    for rule, solver in (
        (srk.eta.dance(0.3), "euler-maruyama"),
        (srk.eta.cps(0.6), "euler-ancestral"),
    ):
        made = scheduler(solver, eta=rule)
        levels = [entry.level.sigma for entry in made._entries]
        for i, (t, at, out) in enumerate(rollout(made, x, w)[:-1]):
            s, after = levels[i], levels[i + 1]
            dt, v = after - s, velocity(at, float(t) / 1000, w)
            data, noise = at - s * v, at + (1 - s) * v
            if solver == "euler-maruyama":
                score = -(at - data * (1 - s)) / s**2
                mean, std = at + v * dt - 0.5 * 0.09 * score * dt, 0.3 * math.sqrt(-dt)
            else:
                std = after * math.sin(0.3 * math.pi)
                mean = (1 - after) * data + math.sqrt(after**2 - std**2) * noise
            assert (out.prev_sample_mean - mean).abs().max() < EXACT
            assert (out.std - std).abs().max() < EXACT


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ddpo_step(eta: float) -> None:
    """The DDIM step of ddpo-pytorch; its eta is that of `euler-ancestral`."""
    x, w = start()
    made = scheduler("euler-ancestral", DDIM.config, eta=eta)
    seen = rollout(made, x, w)
    levels = [entry.level.alpha**2 for entry in made._entries]
    for i, (t, x, out) in enumerate(seen[:-1]):
        a, after, eps = levels[i], levels[i + 1], velocity(x, float(t) / 1000, w)
        data = (x - math.sqrt(1 - a) * eps) / math.sqrt(a)
        std = eta * math.sqrt((1 - after) / (1 - a) * (1 - a / after))
        mean = math.sqrt(after) * data + math.sqrt(1 - after - std**2) * eps
        terms = -((out.prev_sample - mean) ** 2) / (2 * std**2) - math.log(std)
        terms = terms - math.log(math.sqrt(2 * math.pi))
        assert (out.prev_sample_mean - mean).abs().max() < EXACT
        assert (out.log_prob_mean - terms.mean((1, 2))).abs().max() < EXACT


def test_stored_states_in_any_order() -> None:
    """`prev_sample` gives the density of a rollout again, with a timestep for each sample."""
    x, w = start()
    made = scheduler("euler-maruyama", eta=srk.eta.flow_grpo(0.7))
    seen = rollout(made, x, w)
    again = scheduler("euler-maruyama", eta=srk.eta.flow_grpo(0.7))
    for i in (3, 0, 4, 3):
        t, x, out = seen[i]
        said = velocity(x, float(t) / 1000, w)
        got = again.step(said, t, x, prev_sample=out.prev_sample)
        assert torch.equal(got.prev_sample, out.prev_sample)
        assert torch.allclose(got.log_prob, out.log_prob, rtol=1e-12)
        assert torch.allclose(got.prev_sample_mean, out.prev_sample_mean, rtol=1e-12)
    picks = [2, 0, 4]
    times = torch.stack([seen[i][0] for i in picks])
    at = torch.stack([seen[i][1][row] for row, i in enumerate(picks)])
    after = torch.stack([seen[i][2].prev_sample[row] for row, i in enumerate(picks)])
    said = velocity(at, times.double().view(-1, 1, 1) / 1000, w)
    got = again.step(said, times, at, prev_sample=after)
    want = torch.stack([seen[i][2].log_prob[row] for row, i in enumerate(picks)])
    assert torch.allclose(got.log_prob, want, rtol=1e-10)
    assert made.step_index == 6 and again.step_index is None  # a question moves no run
    first = made.step(said, times, at, prev_sample=after, return_dict=False)
    assert len(first) == 6 and torch.equal(first[4], got.log_prob)


@pytest.mark.parametrize("solver", ["srk2m", "srk2m-local", "auto", "srk2", "dpmpp-2m-sde", "sra1"])
def test_solvers_that_remember(solver: str) -> None:
    """The chain of densities is that of the joint distribution of all that the network saw.

    The network is linear here, so that these states are jointly Gaussian; their covariance is found
    by running on unit vectors for draws.
    """
    made = scheduler(solver, eta=1.0, steps=4)
    count = len(made.timesteps)

    def run(draws):
        x, states, log_prob = torch.zeros(1, 1, dtype=torch.float64), [], 0.0
        with pytest.MonkeyPatch.context() as patch:
            given = iter(draws)
            patch.setattr(
                "srk.ecosystem.diffusers.noise.PipelineNoise.draw",
                lambda self, slot, clock, out: out.fill_(next(given, 0.0)),
            )
            made.set_begin_index(0)
            for t in made.timesteps:
                out = made.step(0.3 * x + 0.2, t, x, return_log_prob=True)
                x = out.prev_sample
                states.append(float(x))
                log_prob = log_prob + (0.0 if out.log_prob is None else float(out.log_prob))
        return torch.tensor(states, dtype=torch.float64), log_prob

    many = 4 * count
    mean, _ = run([0.0] * many)
    rows = torch.eye(many, dtype=torch.float64).tolist()
    effects = torch.stack([run(row)[0] - mean for row in rows])
    draws = torch.randn(many, generator=torch.Generator().manual_seed(0)).tolist()
    states, log_prob = run(draws)
    # the density with respect to the states that bring new noise: by conditioning in order
    joint = 0.0
    covariance = effects.T @ effects
    known: list[int] = []
    for k in range(count):
        weight = torch.zeros(0, dtype=torch.float64)
        variance, expected = covariance[k, k], mean[k]
        if known:
            weight = torch.linalg.solve(covariance[known][:, known], covariance[known, k])
            variance = variance - weight @ covariance[known, k]
            expected = expected + weight @ (states[known] - mean[known])
        if variance > 1e-9 * max(float(covariance[k, k]), 1e-9):
            joint += float(
                torch.distributions.Normal(expected, variance.sqrt()).log_prob(states[k])
            )
            known.append(k)
    assert abs(joint - log_prob) < 1e-6 * (1.0 + abs(joint))


def test_replay_of_a_solver_that_remembers() -> None:
    """In order, the densities of `srk2m` come again, with the gradient of the whole chain."""
    x, w = start()
    made = scheduler("srk2m", steps=4)
    seen = rollout(made, x, w)
    total = sum(out.log_prob.sum() for _, _, out in seen if out.log_prob is not None)

    def replay(weight: torch.Tensor) -> torch.Tensor:
        again, result = scheduler("srk2m", steps=4), torch.zeros((), dtype=torch.float64)
        for t, x, out in seen:
            if out.log_prob is None:
                continue
            said = velocity(x, float(t) / 1000, weight)
            got = again.step(said, t, x, prev_sample=out.prev_sample.detach())
            result = result + got.log_prob.sum()
        return result

    assert torch.allclose(replay(w), total, rtol=1e-10)
    (slope,) = torch.autograd.grad(replay(w), w)
    with torch.no_grad():
        expected = (replay(w + 1e-5) - replay(w - 1e-5)) / 2e-5
    assert torch.allclose(slope, expected, rtol=1e-6)
    again = scheduler("srk2m", steps=4)
    t, x, out = seen[1]
    with pytest.raises(IncompatibleError, match="in order, from the first timestep on"):
        again.step(velocity(x, 0.5, w), t, x, prev_sample=out.prev_sample)


@pytest.mark.parametrize("solver", ["wcw", "srk2"])
def test_replay_where_the_calls_of_a_step_have_one_timestep(solver: str) -> None:
    """Timesteps that were stored as numbers do not say which of the calls they belong to."""
    x, w = start()
    config = DDIM.config
    seen = rollout(scheduler(solver, config, steps=3, calls="free"), x, w)
    again = scheduler(solver, config, steps=3, calls="free")
    for _ in range(2):  # a second epoch begins anew
        for t, x, out in seen:
            if out.log_prob is None:
                break
            said = velocity(x, float(t) / 1000, w)
            got = again.step(said, float(t), x, prev_sample=out.prev_sample.detach())
            assert torch.allclose(got.log_prob, out.log_prob, rtol=1e-8)


def test_half_precision_and_frames() -> None:
    """A density belongs to the state as it is stored, in any dtype and frame."""
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float16, torch.bfloat16):
        made = scheduler("ddpm", DDIM.config)
        x = torch.randn(2, 4, dtype=dtype, generator=generator)
        out = made.step(0.1 * x, made.timesteps[0], x, generator=generator, return_log_prob=True)
        got = made.step(0.1 * x, made.timesteps[0], x, prev_sample=out.prev_sample)
        assert out.prev_sample.dtype == dtype and out.log_prob.dtype == torch.float32
        assert torch.equal(got.log_prob, out.log_prob) and bool(out.log_prob.isfinite().all())
    made = scheduler("ddpm", DDIM.config, frame="sigma")
    x = torch.randn(2, 4, dtype=torch.float64, generator=generator)
    out = made.step(0.1 * x, made.timesteps[0], x, generator=generator, return_log_prob=True)
    normal = torch.distributions.Normal(out.prev_sample_mean, out.std)
    assert torch.allclose(normal.log_prob(out.prev_sample).sum(1), out.log_prob, rtol=1e-10)


def test_refusals() -> None:
    """Each says what is missing and what would work."""
    made = scheduler("euler-maruyama")
    x = torch.zeros(2, 4)
    with pytest.raises(ArgumentError, match="draws no noise"):
        made.step(x, made.timesteps[-1], x, prev_sample=x)
    with pytest.raises(ArgumentError, match="prev_sample has shape"):
        made.step(x, made.timesteps[0], x, prev_sample=x[:1])
    with pytest.raises(ArgumentError, match="3 timesteps for 2 samples"):
        made.step(x, made.timesteps[:3], x, prev_sample=x)
    late = scheduler("srk2m")
    late.step(x, late.timesteps[0], x)
    with pytest.raises(IncompatibleError, match="from the first call of the run on"):
        late.step(x, late.timesteps[1], x, return_log_prob=True)


def test_eta_by_level_in_the_config(tmp_path) -> None:
    """Lists and named rules survive a file; a function says that it cannot."""
    for eta in (srk.eta.flow_grpo(0.6), [1.0, 0.5, 0.0], srk.eta.window(1, 2, srk.eta.dance(0.2))):
        made = scheduler("euler-maruyama", steps=3, eta=eta)
        made.save_pretrained(tmp_path)
        again = SRKScheduler.from_pretrained(tmp_path)
        again.set_timesteps(3)
        assert again._route.eta == made._route.eta
        assert again._route.diffusion == made._route.diffusion
        third = SRKScheduler.from_config(again.config)
        assert third.config.eta == made.config.eta
    made = scheduler("ddpm", steps=3, eta=lambda level: level.sigma)
    assert isinstance(made._route.eta, tuple)
    with pytest.raises(ArgumentError, match="a named rule"):
        made.save_pretrained(tmp_path)
    with pytest.raises(ArgumentError, match="is no rule"):
        scheduler("ddpm", eta={"rule": "grpo"})
    with pytest.raises(ArgumentError, match="2 values, but the run has 4 steps"):
        scheduler("ddpm", steps=4, eta=[1.0, 0.0])


def test_eta_by_level_is_that_of_solve() -> None:
    """A run in a pipeline with a rule is that of `srk.solve` with the same rule and draws."""
    x, w = start((2, 3))
    for solver, eta in (
        ("euler-maruyama", srk.eta.dance(0.4)),
        ("dpmpp-2m-sde", [0.2, 1.0, 0.0, 0.7, 1.0]),
    ):
        made = scheduler(solver, steps=5, eta=eta, noise="keyed", seed=4)
        state = x
        with torch.no_grad():
            for t in made.timesteps:
                state = made.step(velocity(state, float(t) / 1000, w), t, state).prev_sample
            network = srk.FlowVelocity(lambda x, t: velocity(x, t.view(-1, 1), w))
            sol = srk.solve(
                srk.Flow(t_min=0.0), network, solver, x_init=x, grid=list(made._route.grid),
                eta=eta, noise=srk.noise.KeyedNoise(4), check_network=False,
            )  # fmt: skip
        assert torch.allclose(state, sol.x, rtol=1e-6, atol=1e-7)


def test_example_of_a_reward(capsys) -> None:
    """examples/policy_gradient.py with small numbers: the reward rises, the KL is reported."""
    with torch.random.fork_rng():
        module = script("examples/policy_gradient.py")
        found = module.main(["--pretrain", "300", "--iterations", "20", "-n", "256"])
    assert found["after"] > found["before"] + 0.2
    assert 0.1 < found["kl"] < 20.0
    assert "20 rollouts: reward" in capsys.readouterr().out
