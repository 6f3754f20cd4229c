r"""Processes around a mean: $x_t = y + \alpha_t (x_0 - y) + \sigma_t \varepsilon$.

The state less the mean, z = x - y, is an ordinary linear process of x_0 - y. That is what solvers
reverse; networks, hooks, callbacks and results have x.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import attrs
import torch

from srk._checks import shown
from srk._modes import ordinary_tensors
from srk.errors import ArgumentError, ArgumentTypeError, IncompatibleError
from srk.processes.base import ForwardProcess, LinearProcess
from srk.processes.parameters import check_data

Windows = tuple[tuple[slice | torch.Tensor, int], ...]


class AroundMean(ForwardProcess):
    """A linear process around a mean y that is given, such as a degraded picture or noisy speech.

    A subclass is an attrs class with the fields `mean` and `_windows`, as `srk.Shifted` has them,
    and gives `centred`, the linear process of x - y. `srk.Shifted` puts any linear process around a
    mean.

    Examples:
        >>> import srk
        >>> process = srk.Shifted(srk.VP(), mean=2.0)
        >>> process.centred
        VP(beta_min=0.1, beta_max=20.0, t_min=0.001, t_max=1.0)
    """

    mean: torch.Tensor
    _windows: Windows

    @property
    @abstractmethod
    def centred(self) -> LinearProcess:
        """The linear process of the state less the mean, in the same own time."""

    @property
    def statistic(self) -> LinearProcess:
        """That of the state less the mean: it has the levels and the log-SNR."""
        return self.centred

    def centre(self, like: torch.Tensor) -> torch.Tensor:
        """The mean for states of shape (batch, *event), on their device and in their dtype.

        Raises:
            ArgumentError: its shape does not broadcast to theirs.
        """
        mean = self.mean
        for rows, batch in self._windows:
            if mean.ndim == like.ndim and len(mean) == batch:
                mean = mean[rows if isinstance(rows, slice) else rows.to(mean.device)]
        try:
            fits = mean.expand(like.shape) is not None
        except RuntimeError:
            fits = False
        if not fits:
            raise ArgumentError(
                f"the mean of {type(self).__name__} has shape {tuple(mean.shape)}, which does not "
                f"broadcast to states of shape {tuple(like.shape)}; give one of shape "
                f"{tuple(like.shape[1:])} for all samples, or of shape {tuple(like.shape)}"
            )
        if mean.is_complex() and not like.is_complex():
            raise ArgumentError(
                f"the mean of {type(self).__name__} is {mean.dtype}, but the states are "
                f"{like.dtype}; draw complex states: dtype={mean.dtype}"
            )
        return mean.to(device=like.device, dtype=like.dtype)

    def select(self, rows: slice | torch.Tensor, batch: int) -> Self:
        """The process of some samples of a batch, where each sample has its mean."""
        if self.mean.ndim == 0:
            return self
        return attrs.evolve(self, windows=(*self._windows, (rows, batch)))  # type: ignore[misc]

    def placed(self, like: torch.Tensor) -> Self:
        """The process with its mean on the device and in the dtype of the states `like`."""
        self.centre(like)  # says here if it does not fit
        moved = self.mean.to(device=like.device, dtype=like.dtype)
        return self if moved is self.mean else self.with_mean(moved)

    def visible(self, z: torch.Tensor) -> torch.Tensor:
        """The state z + y that a network sees, a new tensor, for the state z that solvers move."""
        mean = self.centre(z)
        with ordinary_tensors():  # a network that writes to it is to be seen
            return z + mean

    def with_mean(self, mean: torch.Tensor) -> Self:
        """The process around another mean, of the same samples."""
        return attrs.evolve(self, mean=mean)  # type: ignore[misc]

    def alpha(self, t: Any) -> Any:
        """The weight of x_0 - y at own time `t`."""
        return self.centred.alpha(t)

    def sigma(self, t: Any) -> Any:
        """The noise scale at own time `t`."""
        return self.centred.sigma(t)

    def drift(self, t: float | torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """f(t) (x - y) for states `x` of shape (batch, *event)."""
        return self.centred.drift(t, x - self.centre(x))

    def diffusion(self, t: Any) -> Any:
        """g(t) at own time `t`."""
        return self.centred.diffusion(t)

    def initial_state(self, normals: torch.Tensor) -> torch.Tensor:
        """y plus `normals` times sigma(t_max), in place."""
        return self.centred.initial_state(normals).add_(self.centre(normals))

    def data_scale(self, t: float) -> float:
        """alpha at own time `t`."""
        return self.centred.data_scale(t)

    def sample_prior(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        """Draw states of shape `shape` = (batch, *event) from N(y, sigma(t_max)^2 I)."""
        z = self.centred.sample_prior(shape, generator=generator, device=device, dtype=dtype)
        return z.add_(self.centre(z))

    def perturb(
        self, x0: torch.Tensor, t: float | torch.Tensor, *, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Draw x_t = y + alpha (x_0 - y) + sigma eps given data, as training does.

        Arguments:
            x0: data, shape (batch, *event).
            t: own time, one number or a tensor of shape (batch,) on any device.
            generator: where eps comes from; PyTorch's global one by default.
        """
        check_data(x0)
        y = self.centre(x0)
        return self.centred.perturb(x0 - y, t, generator=generator).add_(y)

    def validate(self) -> None:
        """Raise unless the process of x - y is usable."""
        super().validate()
        self.centred.validate()


def as_mean(value: Any) -> torch.Tensor:
    """`value` as a mean: a finite floating-point tensor."""
    if value is None:
        raise ArgumentTypeError(
            "a process around a mean needs it: mean=y, a tensor of the shape of one sample or of "
            "the whole batch, or a number; e.g. srk.OUVE(mean=noisy)"
        )
    if isinstance(value, bool | str):
        raise ArgumentTypeError(f"mean is a tensor or a number, not {shown(value)}")
    try:
        mean = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentTypeError(f"mean is a tensor or a number, not {shown(value)}") from error
    if mean.layout is not torch.strided or mean.device.type == "meta":
        raise ArgumentError(
            f"mean must be a dense tensor with numbers in it, not one of layout {mean.layout} on "
            f"{mean.device}; use mean.to_dense()"
        )
    if not (mean.is_floating_point() or mean.is_complex()):
        mean = mean.to(torch.float64)
    bad = int((~torch.isfinite(mean)).sum())
    if bad:
        raise ArgumentError(
            f"mean holds NaN or inf in {bad} of {mean.numel()} numbers; every sample would"
        )
    return mean


def told_shape(mean: torch.Tensor) -> str:
    """A mean as a message shows it."""
    return repr(mean.item()) if mean.ndim == 0 else f"tensor of shape {tuple(mean.shape)}"


@attrs.frozen(eq=False)
class Shifted(AroundMean):
    r"""A linear process around a mean y: $x_t = y + \alpha_t (x_0 - y) + \sigma_t \varepsilon$.

    What a network of such a process is: it sees the state x_t itself. What it says is that of
    x_t - y: the noise and the score are the same, velocities are those of x_t - y; a network of the
    data (`srk.Data`, `srk.EDMDenoiser`) predicts x_0 itself. The reversal starts at y plus
    sigma(t_max) noise, which leaves out alpha(t_max) (x_0 - y).

    Arguments:
        process: a linear process; its own time is that of this one.
        mean: y, a number, one tensor of the shape of a sample, or one for each sample,
            (batch, *event); on any device and of any dtype, complex for complex states.

    Raises:
        ArgumentError: `mean` is not finite; when the process is used, its shape does not fit.
        ArgumentTypeError: `mean` is missing or no number, or `process` is not linear.

    Examples:
        >>> import srk, torch
        >>> y = torch.tensor([[2.0], [-1.0]])
        >>> process = srk.Shifted(srk.VP(), mean=y)
        >>> score = srk.targets.Gaussian(1.5, 0.01).score(process)
        >>> x = srk.solve(process, score, shape=(2, 1), nfe=20, seed=0).x
        >>> bool((x - 1.5).abs().max() < 0.5)
        True
    """

    name = "shifted"

    process: LinearProcess = attrs.field()
    mean: torch.Tensor = attrs.field(default=None, converter=as_mean, repr=told_shape, kw_only=True)
    _windows: Windows = attrs.field(default=(), kw_only=True, repr=False)

    @process.validator
    def _check_process(self, attribute: attrs.Attribute[Any], value: object) -> None:
        if isinstance(value, AroundMean):
            raise IncompatibleError(
                f"{value!r} has a mean already; give srk.Shifted(process.centred, mean=...)"
            )
        if not isinstance(value, LinearProcess):
            raise ArgumentTypeError(
                f"srk.Shifted is for a linear process such as srk.VP(), not {shown(value)}"
            )

    @property
    def centred(self) -> LinearProcess:
        """The process that was given."""
        return self.process

    @property
    def t_min(self) -> float:  # type: ignore[override]
        return self.process.t_min

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return self.process.t_max
