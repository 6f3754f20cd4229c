"""What may be remembered: keys of values, refusals of everything that can change unseen, and the
memory that uses them.
"""

from __future__ import annotations

import math
import sys
import threading
import tracemalloc
import types
from collections.abc import Callable
from functools import cached_property, lru_cache, partial
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from kinds import made_processes

import srk
from srk.sampling import planning
from srk.values import NotAValue, Remembered, size_of, value

TARGET = srk.targets.Gaussian(0.5, 0.04)
SETTINGS = types.ModuleType("settings")
SLOPE = 12.0
SLOPES = [12.0]
TENSOR = torch.tensor(12.0)


class Learned(srk.LinearProcess):
    """The half log-SNR falls linearly in t by `slope`, which each kind below keeps elsewhere."""

    name, t_min, t_max = "learned", 0.0, 1.0

    def slope(self) -> float:
        return 12.0

    def lam(self, t: Any) -> Any:
        return 4.0 - float(self.slope()) * t

    def alpha(self, t: float) -> float:
        return 1.0 / math.sqrt(1.0 + math.exp(-2.0 * self.lam(t)))

    def sigma(self, t: float) -> float:
        return 1.0 / math.sqrt(1.0 + math.exp(2.0 * self.lam(t)))


Change = Callable[[], None]
Kind = Callable[[], tuple[srk.LinearProcess, Change]]


def parameter() -> tuple[srk.LinearProcess, Change]:
    class Process(Learned):
        def __init__(self) -> None:
            self.b = torch.nn.Parameter(torch.tensor(12.0))

        def slope(self) -> float:
            return float(self.b.detach())

    process = Process()
    return process, lambda: process.b.data.fill_(4.0) and None


def nested() -> tuple[srk.LinearProcess, Change]:
    held = np.array([12.0])

    class Process(Learned):
        def __init__(self) -> None:
            self.b = (("deep", (held,)),)

        def slope(self) -> float:
            return float(self.b[0][1][0][0])

    return Process(), lambda: held.fill(4.0)


def closure() -> tuple[srk.LinearProcess, Change]:
    b = torch.tensor(12.0)

    class Process(Learned):
        def slope(self) -> float:
            return float(b)

    return Process(), lambda: b.fill_(4.0) and None


def rebound_closure() -> tuple[srk.LinearProcess, Change]:
    """A number in a closure is a value; that another number stands there later must show."""
    b = 12.0

    class Process(Learned):
        def slope(self) -> float:
            return b

    def change() -> None:
        nonlocal b
        b = 4.0

    return Process(), change


def class_attribute() -> tuple[srk.LinearProcess, Change]:
    class Process(Learned):
        b: Any = 12.0

        def slope(self) -> float:
            return float(self.b)

    return Process(), lambda: setattr(Process, "b", 4.0)


def class_tensor() -> tuple[srk.LinearProcess, Change]:
    class Process(Learned):
        b = torch.tensor(12.0)

        def slope(self) -> float:
            return float(self.b)

    return Process(), lambda: Process.b.fill_(4.0) and None


def global_number() -> tuple[srk.LinearProcess, Change]:
    class Process(Learned):
        def slope(self) -> float:
            return SLOPE

    return Process(), lambda: globals().update(SLOPE=4.0)


def global_list() -> tuple[srk.LinearProcess, Change]:
    class Process(Learned):
        def slope(self) -> float:
            return SLOPES[0]

    return Process(), lambda: SLOPES.__setitem__(0, 4.0)


def helper_of_a_helper() -> tuple[srk.LinearProcess, Change]:
    class Process(Learned):
        def slope(self) -> float:
            return sum([_through() for _ in range(1)])

    return Process(), lambda: TENSOR.fill_(4.0) and None


def _through() -> float:
    return _at_last()


def _at_last() -> float:
    return float(TENSOR)


def module_attribute() -> tuple[srk.LinearProcess, Change]:
    SETTINGS.b = 12.0  # type: ignore[attr-defined]

    class Process(Learned):
        def slope(self) -> float:
            return float(SETTINGS.b)

    return Process(), lambda: setattr(SETTINGS, "b", 4.0)


def imported_inside() -> tuple[srk.LinearProcess, Change]:
    SETTINGS.b = 12.0  # type: ignore[attr-defined]
    sys.modules["srk_test_settings"] = SETTINGS

    class Process(Learned):
        def slope(self) -> float:
            import srk_test_settings  # type: ignore[import-not-found]

            return float(srk_test_settings.b)

    return Process(), lambda: setattr(SETTINGS, "b", 4.0)


def property_of_a_friend() -> tuple[srk.LinearProcess, Change]:
    class Friend:
        def __init__(self) -> None:
            self.weights = {"b": 12.0}

        @property
        def b(self) -> float:
            return self.weights["b"]

    class Process(Learned):
        def __init__(self) -> None:
            self.friend = Friend()

        def slope(self) -> float:
            return self.friend.b

    process = Process()
    return process, lambda: process.friend.weights.update(b=4.0)


def function_attribute() -> tuple[srk.LinearProcess, Change]:
    held = torch.tensor(12.0)

    class Process(Learned):
        def __init__(self) -> None:
            self.schedule = partial(lambda b, scale: b.item() * scale, held, scale=1.0)

        def slope(self) -> float:
            return self.schedule()

    return Process(), lambda: held.fill_(4.0) and None


def default_argument() -> tuple[srk.LinearProcess, Change]:
    held = [12.0]

    class Process(Learned):
        def slope(self, held: list[float] = held) -> float:
            return held[0]

    return Process(), lambda: held.__setitem__(0, 4.0)


def memoized() -> tuple[srk.LinearProcess, Change]:
    held = [12.0]

    @lru_cache
    def slope(key: int) -> float:
        return held[0]

    class Process(Learned):
        def slope(self) -> float:
            return slope(0)

    def change() -> None:
        held[0] = 4.0
        slope.cache_clear()

    return Process(), change


def method_replaced() -> tuple[srk.LinearProcess, Change]:
    class Process(Learned):
        pass

    return Process(), lambda: setattr(Process, "slope", lambda self: 4.0)


def subclass_of_ours() -> tuple[srk.LinearProcess, Change]:
    held = torch.tensor(0.1)

    @attrs.frozen
    class Process(srk.VP):
        def alpha(self, t: Any) -> Any:
            return math.exp(-0.25 * t**2 * 19.9 - 0.5 * t * float(held))

        def sigma(self, t: Any) -> Any:
            return math.sqrt(-math.expm1(-0.5 * t**2 * 19.9 - t * float(held)))

        def lam(self, t: Any) -> Any:
            return math.log(self.alpha(t) / self.sigma(t))

        def _inverse(self, lam: float) -> float:
            return srk.LinearProcess._inverse(self, lam)

    return Process(), lambda: held.fill_(5.0) and None


def module_of_torch() -> tuple[srk.LinearProcess, Change]:
    class Process(Learned, torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.b = torch.nn.Linear(1, 1)
            self.b.weight.data.fill_(12.0)

        def slope(self) -> float:
            return self.b.weight.item()

    process = Process()
    return process, lambda: process.b.weight.data.fill_(4.0) and None


def object_of_another_library() -> tuple[srk.LinearProcess, Change]:
    class Process(Learned):
        def __init__(self) -> None:
            self.b = bytearray([12])

        def slope(self) -> float:
            return float(self.b[0])

    process = Process()
    return process, lambda: process.b.__setitem__(0, 4)


KINDS = [
    parameter,
    nested,
    closure,
    rebound_closure,
    class_attribute,
    class_tensor,
    global_number,
    global_list,
    helper_of_a_helper,
    module_attribute,
    imported_inside,
    property_of_a_friend,
    function_attribute,
    default_argument,
    memoized,
    method_replaced,
    subclass_of_ours,
    module_of_torch,
    object_of_another_library,
]


@pytest.fixture(autouse=True)
def _numbers_restored() -> Any:
    yield
    globals().update(SLOPE=12.0)
    SLOPES[0] = 12.0
    TENSOR.fill_(12.0)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_plans_follow_the_numbers_wherever_a_process_keeps_them(kind: Kind) -> None:
    process, change = kind()

    def draw() -> torch.Tensor:
        return srk.solve(process, TARGET.score(process), "ddpm", shape=(3, 1), steps=4, seed=0).x

    before = draw()
    assert torch.equal(draw(), before)
    change()
    after = draw()
    planning.forget()
    assert torch.equal(after, draw()) and not torch.equal(after, before)


def test_solvers_and_grids_of_users_are_planned_from_their_numbers_too() -> None:
    share = torch.tensor(0.5)

    class Halves(srk.steps.Grid):
        name, remembered = "halves", True

        def times(self, problem: srk.steps.RunInfo) -> list[float]:
            return [1.0, float(share), problem.process.t_min]

    @attrs.frozen
    class Scaled(type(srk.solvers()["ddpm"])):  # type: ignore[misc]
        def plan(self, step: Any) -> Any:
            return super().plan(attrs.evolve(step, eta=float(share)))

    def draw(solver: Any, grid: Any) -> torch.Tensor:
        vp = srk.VP()
        return srk.solve(vp, TARGET.score(vp), solver, shape=(3, 1), seed=0, **grid).x

    for solver, grid in (("ddpm", {"grid": Halves(), "steps": 2}), (Scaled(), {"steps": 3})):
        share.fill_(0.5)
        before = draw(solver, grid)
        share.fill_(0.25)
        assert not torch.equal(draw(solver, grid), before)


# -- keys ---------------------------------------------------------------------------------------


REGISTERED = [*made_processes().values(), *srk.solvers().values()]


@pytest.mark.parametrize("thing", REGISTERED, ids=lambda thing: thing.name)
def test_what_is_registered_is_a_value(thing: Any) -> None:
    key = value(thing)
    assert hash(key) == hash(value(thing)) and key == value(thing)


def test_a_process_of_plain_arithmetic_is_a_value() -> None:
    @attrs.frozen
    class Process(Learned):
        rate: float = 12.0

        def slope(self) -> float:
            return self.rate * math.exp(0.0) * float(np.sqrt(1.0)) + np.pi * 0.0

    assert value(Process()) == value(Process()) != value(Process(4.0))


def test_a_class_that_refers_to_itself_is_a_value() -> None:
    class Process(Learned):
        def slope(self) -> float:
            return super().slope() + (0.0 if isinstance(self, Process) else 1.0)

    assert value(Process()) == value(Process())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, True),
        (0.0, -0.0),
        ((0.0, 1.0), (-0.0, 1.0)),
        ((1, 2), (1.0, 2.0)),
        ((1, 2.0), (1.0, 2)),
        (np.float64(1.0), 1.0),
        (np.float32(1.0), np.float64(1.0)),
        (torch.float32, torch.float64),
        ("a", b"a"),
        ((1, (2,)), ((1,), 2)),
        (lambda x: x, lambda x: -x),
    ],
    ids=lambda thing: "function" if callable(thing) else repr(thing),
)
def test_things_that_are_not_the_same_have_other_keys(one: Any, other: Any) -> None:
    assert value(one) != value(other)
    assert value(one) == value(one)


def test_functions_of_other_arguments_have_other_keys() -> None:
    def make(a: float) -> Callable[[float], float]:
        return lambda x: a * x

    assert value(make(1.0)) == value(make(1.0)) != value(make(2.0))


@pytest.mark.parametrize(
    "thing",
    [
        torch.zeros(1),
        torch.nn.Parameter(torch.zeros(1)),
        np.zeros(1),
        [1.0],
        {"a": 1.0},
        {1.0},
        object(),
        iter([1]),
        torch.Generator(),
        threading.Lock(),
        (1.0, (2.0, [3.0])),
        lambda: np.random.rand(),  # noqa: NPY002
        lambda: open("numbers").read(),  # noqa: SIM115
        lambda: globals(),
        lambda: np.load("numbers.npy"),
        lambda: torch.rand(1),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_what_can_change_in_place_is_no_value(thing: Any) -> None:
    with pytest.raises(NotAValue):
        value(thing)


def test_a_cached_property_is_looked_through() -> None:
    held = [1.0]

    class Thing:
        @cached_property
        def number(self) -> float:
            return held[0]

    with pytest.raises(NotAValue):
        value(Thing())


# -- the memory ---------------------------------------------------------------------------------


def test_memory_is_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many grids as one likes, of any length, stay within the limit."""
    vp, ddpm, limit = srk.VP(), srk.solvers()["ddpm"], 2**20
    monkeypatch.setattr(planning, "_remembered", Remembered(limit))
    for i in range(20):
        n = 100 + i
        times = [vp.t_max + (vp.t_min - vp.t_max) * k / n for k in range(n + 1)]
        planning.plan_grid(vp, ddpm, times)
        assert 0 < planning._remembered.bytes <= limit
    assert 1 < len(planning._remembered) < 20
    planning.forget()
    assert planning._remembered.bytes == 0 == len(planning._remembered)


def test_sizes_are_those_of_the_allocator() -> None:
    vp, solver = srk.VP(), srk.solvers()["srk2m"]
    times = srk.steps.LogSNR().times(srk.steps.RunInfo(vp, solver, 300))
    planning._plan(vp, solver, times[:5], [1.0] * 4)
    tracemalloc.start()
    try:
        plans = planning._plan(vp, solver, times, [1.0] * 300)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert 0.7 < size_of(plans) / taken < 1.7


def test_the_last_used_stays_and_what_is_too_large_is_not_kept() -> None:
    made: list[Any] = []

    def get(memory: Remembered, name: str, length: int = 100) -> Any:
        def make() -> tuple[float, ...]:
            made.append(name)
            return tuple(float(i) for i in range(length))

        return memory.get(make, name)

    one = Remembered(10**6)
    get(one, "a")
    memory = Remembered(2 * one.bytes)
    for name in ("a", "b", "a", "c", "a", "b"):  # c drops b, not a
        get(memory, name)
    assert made[1:] == ["a", "b", "c", "b"]
    get(memory, "d", 100_000)
    assert len(memory) == 2 and memory.bytes <= memory.limit


def test_threads_share_the_memory() -> None:
    """Threads that ask for few results, of which not all fit, never see an entry that is gone."""
    memory = Remembered(3 * size_of(tuple(map(float, range(100)))))
    wrong: list[Any] = []

    def work(seed: int) -> None:
        order = np.random.default_rng(seed)
        try:
            for _ in range(2000):
                i = int(order.integers(6))
                found = memory.get(lambda i=i: tuple(float(i) for _ in range(100)), i)
                if found != (float(i),) * 100:
                    wrong.append(i)
        except Exception as error:  # what a thread raises would be lost
            wrong.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []
    assert memory.bytes <= memory.limit


def test_a_key_is_kept_for_what_cannot_change_only() -> None:
    """Frozen objects that hold numbers alone keep their key; what can change is looked at again."""
    import gc

    from srk.values import key

    grid = srk.steps.Times([1.0, 0.5, 0.1])
    assert value(grid) is value(grid)
    assert value(srk.steps.Times([1.0, 0.5, 0.1])) == value(grid) != value(srk.steps.Times([1.0]))
    number = id(grid)
    assert number in key._KEPT
    del grid
    gc.collect()
    assert number not in key._KEPT

    class Mine(srk.VP):
        """A user's class may read anything."""

    assert value(srk.VP()) == value(srk.VP())
    assert not key.unchanging(Mine())
    assert not key.unchanging(srk.VPCosine)
