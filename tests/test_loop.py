"""compile="loop": a recorded run repeated with other seeds, on a tape in place of a CUDA graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tape import Tape
from torch import Tensor, nn

import srk
from srk._engine import cuda_graph, finite
from srk._engine.held import held
from srk.errors import IncompatibleError, SolveError

VP = srk.VP()
SOURCES = ("generator", "keyed", "brownian")


@pytest.fixture(autouse=True)
def tape(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tapes record on the CPU, where the watch then behaves as on a GPU."""
    start = finite.Watch.__init__

    def like_on_a_gpu(self: finite.Watch, state: Tensor) -> None:
        start(self, state)
        self.immediate = False

    monkeypatch.setattr(cuda_graph, "recording_for", Tape)
    monkeypatch.setattr(finite.Watch, "__init__", like_on_a_gpu)
    monkeypatch.setattr(Tape, "recorded", 0)
    monkeypatch.setattr(Tape, "fails", None)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.condition = torch.zeros(3)
        self.scale = 1.0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(self.layer(x) * self.scale + self.condition) * (1 - 0.1 * t[:, None])


def samplers(network: Any, solver: str = "srk2m", **options: Any) -> tuple[Any, Any]:
    options = {"steps": 4, **options}
    return (
        srk.Sampler(VP, srk.Data(network), solver, **options),
        srk.Sampler(VP, srk.Data(network), solver, compile="loop", **options),
    )


def check(eager: Any, loop: Any, **options: Any) -> None:
    options = {"shape": (4, 3), "seed": 0} | options
    if "x_init" in options:
        del options["shape"]
    a, b = eager(**options), loop(**options)
    # a device's normals differ from the loop's on the CPU in their last places
    torch.testing.assert_close(b.x, a.x, rtol=2e-5, atol=2e-5)
    assert (b.nfe, b.steps, b.seed, b.times, b.status) == (a.nfe, a.steps, a.seed, a.times, "done")


@pytest.mark.parametrize(
    ("solver", "noise"),
    [
        *(("ddpm", noise) for noise in SOURCES),
        *(("srk2m", noise) for noise in SOURCES[:2]),
        pytest.param("srk2m", "brownian", marks=pytest.mark.slow),
        *(
            pytest.param(solver, noise, marks=pytest.mark.slow)
            for solver in ("srk2s", "sra1", "sa-solver")
            for noise in SOURCES
        ),
    ],
)
def test_other_seeds_and_states(solver: str, noise: str) -> None:
    torch.manual_seed(0)
    eager, loop = samplers(Network(), solver)
    for seed in (0, 2**70, 0):
        check(eager, loop, seed=seed, noise=noise)
    check(eager, loop, x_init=torch.randn(4, 3), seed=3, noise=noise)
    assert Tape.recorded == 1


def test_other_samples_and_lists_of_seeds() -> None:
    eager, loop = samplers(Network(), "ddpm")
    for make in (srk.noise.KeyedNoise, srk.noise.BrownianNoise):
        Tape.recorded = 0
        for given in ({"first_index": 8}, {"indices": [5, 1, 2**40, 0]}):
            check(eager, loop, noise=make(3, **given), seed=None)
        assert Tape.recorded == 1
        for seeds in ([1, 2, 3, 4], [9, 9, 2**65, 0]):
            check(eager, loop, noise=make(seeds=seeds), seed=None)
        assert Tape.recorded == 2
    # a path cut in another way is another source
    check(eager, loop, noise=srk.noise.BrownianNoise(3, levels=3), seed=None)
    assert Tape.recorded == 3


def test_hooks_draw_inside() -> None:
    class Shake:
        normals = 2

        def before_step(self, x: Tensor, level: Any, normals: Tensor) -> Tensor:
            return x + 0.1 * normals.sum(1, keepdim=True)

    base = srk.scores.StateHook
    hook = type("Shaking", (Shake, base), {})()
    eager, loop = samplers(Network(), "ddpm", hooks=[hook])
    for seed in (0, 1):
        check(eager, loop, seed=seed, noise="keyed")


def test_weights_may_change_in_place_and_anything_may_be_replaced() -> None:
    network = Network()
    eager, loop = samplers(network)
    changes = {
        "in place": (lambda: network.layer.weight.data.mul_(0.5), 0),
        "a condition in place": (lambda: network.condition.fill_(0.5), 0),
        "a condition": (lambda: setattr(network, "condition", torch.ones(3)), 1),
        "a number": (lambda: setattr(network, "scale", 2.0), 1),
        "a layer": (lambda: setattr(network, "layer", nn.Linear(3, 3)), 1),
        "weights": (lambda: setattr(network.layer, "weight", nn.Parameter(torch.eye(3))), 1),
    }
    check(eager, loop)
    for what, (change, captures) in changes.items():
        Tape.recorded = 0
        change()
        check(eager, loop)
        check(eager, loop, seed=1)
        assert Tape.recorded == captures, what


def test_the_prediction_itself_may_be_replaced() -> None:
    eager, loop = samplers(Network())
    check(eager, loop)
    eager.prediction = loop.prediction = srk.Data(Network()).bind(VP)
    check(eager, loop)


def test_graphs_are_few() -> None:
    eager, loop = samplers(Network())
    for batch in range(1, 8):
        check(eager, loop, shape=(batch, 3))
    assert len(loop._loops._made) == cuda_graph.GRAPHS
    assert Tape.recorded == 7
    check(eager, loop, shape=(7, 3))
    assert Tape.recorded == 7


def test_a_users_autocast_is_not_captured_as_it_is() -> None:
    network = Network()
    eager, loop = samplers(network)
    for scale in (1.0, 0.5):
        network.layer.weight.data.mul_(scale)
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            a = eager(shape=(4, 3), seed=0, dtype=torch.float32).x
            b = loop(shape=(4, 3), seed=0, dtype=torch.float32).x
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert Tape.recorded == 1
    check(eager, loop)  # outside of it the run is another
    assert Tape.recorded == 2


def test_inference_mode_and_then_not() -> None:
    eager, loop = samplers(Network())
    with torch.inference_mode():
        check(eager, loop, noise="keyed")
    check(eager, loop, noise="keyed", seed=1)
    assert Tape.recorded == 1


def test_a_failed_capture_leaves_nothing_behind() -> None:
    network = Network()
    eager, loop = samplers(network)
    Tape.fails = RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")
    with pytest.raises(IncompatibleError, match=r"could not capture.*not permitted.*\.item\(\)"):
        loop(shape=(4, 3), seed=0)
    Tape.fails = None
    check(eager, loop)
    waiting = srk.Data(lambda x, t: x * (0.5 if x.sum().item() > 0 else 0.4))
    with pytest.raises(IncompatibleError, match="could not capture"):
        srk.Sampler(VP, waiting, "ddpm", steps=3, compile="loop")(shape=(4, 3), seed=0)


def test_a_failed_run_says_so() -> None:
    network = Network()
    _, loop = samplers(network)
    loop(shape=(4, 3), seed=0)
    network.condition.fill_(torch.nan)
    with pytest.raises(SolveError, match="NaN or inf at step 0"):
        loop(shape=(4, 3), seed=0)
    network.condition.fill_(0.0)
    assert loop(shape=(4, 3), seed=0).status == "done"


def test_what_it_cannot_do_is_refused() -> None:
    _, loop = samplers(Network())
    with pytest.raises(IncompatibleError, match="'keyed' and 'brownian' can"):
        loop(shape=(4, 3), noise=lambda slot, clock, out: out.zero_())
    for options in ({"save": "x"}, {"callback": lambda info: None}, {"progress": True}):
        with pytest.raises(IncompatibleError, match="without the host"):
            loop(shape=(4, 3), seed=0, **options)


def test_what_is_held() -> None:
    weight = torch.ones(2)
    table = {"a": [weight, 1.0]}

    def network(x: Tensor, t: Tensor) -> Tensor:
        return x * table["a"][0]

    before = held(network)
    weight.mul_(2)
    assert held(network) == before
    table["a"][1] = 2.0
    assert held(network) != before
    table["a"][:] = [torch.ones(2), 1.0]
    assert held(network) != before
    table["a"].append(table)  # a circle ends
    held(network)


@pytest.mark.parametrize("noise", SOURCES[:2])
def test_hooks_that_change_the_state_draw_anew_at_each_repetition(noise: str) -> None:
    hooks = [srk.scores.CenterRandomAugmentation(), srk.scores.RigidAlign()]
    network = srk.Data(lambda x, t: 0.5 * torch.tanh(x))
    eager, loop = (
        srk.Sampler(VP, network, "ddpm", steps=4, hooks=hooks, compile=compiled)
        for compiled in (False, "loop")
    )
    for seed in (0, 1, 0):
        check(eager, loop, shape=(4, 5, 3), seed=seed, noise=noise)
    assert Tape.recorded == 1


def test_complex_states() -> None:
    network = srk.Data(lambda z, t: 0.5j * z)
    eager, loop = (
        srk.Sampler(VP, network, "ddpm", steps=4, compile=compiled, check_network=False)
        for compiled in (False, "loop")
    )
    for seed in (0, 1, 0):
        check(eager, loop, dtype=torch.complex64, seed=seed)
    assert Tape.recorded == 1
