"""Guesses of a run that is parallel in time are Broyden's, and rest on what is known."""

import itertools

import pytest
import torch
from torch import Tensor

import srk
from srk._engine.secants import AFTER, BEFORE, DAMPING, KEPT, Secants

COUNT, BATCH, SIZE = 12, 2, 5


def told(rounds: int) -> tuple[Secants, list[tuple[Tensor, Tensor]]]:
    """Rounds of random inputs and outputs."""
    generator = torch.Generator().manual_seed(0)
    shape = (COUNT, BATCH, SIZE)
    made = [
        tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
        for _ in range(rounds)
    ]
    secants = Secants(torch.zeros(BATCH, SIZE, dtype=torch.float64), 1e-16)
    for inputs, outputs in made:
        secants.learn(0, inputs, outputs, torch.ones(COUNT, BATCH, dtype=torch.bool))
    return secants, made


def broyden(made: list[tuple[Tensor, Tensor]], number: int, sample: int, x: Tensor) -> Tensor:
    """The textbook's loop: a rank-one correction of the derivative for each move."""
    derivative = torch.zeros(SIZE, SIZE, dtype=torch.float64)
    offsets = sorted(range(-BEFORE, AFTER + 1), key=lambda offset: -abs(offset))
    for offset in offsets:
        at = number + offset
        if not 0 <= at < COUNT:
            continue
        for one, two in list(itertools.pairwise(made))[-KEPT:]:
            s, y = (two[i][at, sample] - one[i][at, sample] for i in range(2))
            error = (y - derivative @ s) / (1 + DAMPING)
            derivative += torch.outer(error, s) / s.dot(s)
    inputs, outputs = made[-1]
    return outputs[number, sample] + derivative @ (x - inputs[number, sample])


@pytest.mark.parametrize("rounds", [1, 2, 3, 6])
def test_a_guess_is_that_of_broyden(rounds: int) -> None:
    secants, made = told(rounds)
    x = torch.randn(BATCH, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for number in range(COUNT):
        guess = secants.guess(number, x)
        for sample in range(BATCH):
            expected = broyden(made, number, sample, x[sample])
            torch.testing.assert_close(guess[sample], expected, rtol=1e-9, atol=1e-9)


def test_at_a_known_input_it_is_the_known_output() -> None:
    secants, made = told(4)
    for number in range(COUNT):
        assert torch.equal(secants.guess(number, made[-1][0][number]), made[-1][1][number])


def test_samples_and_evaluations_that_were_not_asked() -> None:
    secants, made = told(3)
    before = secants.guess(4, torch.ones(BATCH, SIZE, dtype=torch.float64))
    asked = torch.zeros(3, BATCH, dtype=torch.bool)
    asked[:, 1] = True
    noise = torch.randn(3, BATCH, SIZE, dtype=torch.float64)
    secants.learn(COUNT - 1, noise, 2 * noise, asked)
    after = secants.guess(4, torch.ones(BATCH, SIZE, dtype=torch.float64))
    # more evaluations make the batched products larger, which may be rounded in another order
    assert torch.allclose(before[0], after[0], rtol=1e-13, atol=1e-13)
    # a new evaluation gets the last answer that there is, for each sample by itself
    x = torch.zeros(BATCH, SIZE, dtype=torch.float64)
    late = secants.guess(COUNT + 5, x)
    assert torch.equal(late[1], 2 * noise[-1, 1])
    assert torch.equal(late[0], made[-1][1][-1, 0])
    assert torch.equal(secants.guess(COUNT, x)[0], late[0])
    secants.forget(COUNT)
    assert secants.first == COUNT - BEFORE
    assert torch.equal(secants.guess(COUNT + 5, x), late)


def test_moves_that_are_rounding_tell_nothing() -> None:
    secants = Secants(torch.zeros(1, SIZE), torch.finfo(torch.float32).eps)
    inputs = torch.ones(1, 1, SIZE)
    asked = torch.ones(1, 1, dtype=torch.bool)
    secants.learn(0, inputs, inputs, asked)
    secants.learn(0, inputs * (1 + 1e-6), inputs * 3, asked)
    assert torch.equal(secants.guess(0, 2 * inputs[0]), 3 * inputs[0])


@pytest.mark.parametrize("solver", ["ddpm", "auto"])
def test_rounds_on_the_network_of_garments(solver: str) -> None:
    process, score = srk.targets.garments()
    options = {"shape": 1, "steps": 50, "noise": "keyed", "seed": 1}
    one = srk.solve(process, score, solver, **options).x
    many = srk.solve(process, score, solver, parallel=srk.Picard(), **options)
    assert many.rounds <= 16
    assert (many.x - one).square().mean().sqrt() < 0.01 * one.std()
