"""Guidance of one network for all parts of a product."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import Tensor

from srk._checks import shown
from srk.errors import ArgumentTypeError
from srk.processes.product import Product, for_each
from srk.scores.guidance import Guided
from srk.scores.joint import BoundPrediction, ProductPrediction
from srk.scores.weights import Scale


class JointGuided(ProductPrediction):
    """Guidance of a joint network: D = D_ref + w (D_cond - D_ref) in each part (see `srk.Guided`).

    An evaluation asks both networks once for all parts, and only those that have a weight in some
    part: with w = 1 the reference is not called.

    Arguments:
        condition: the joint network with its condition, a `Joint` or `Independent`.
        reference: that without it, or with the condition to keep away from.
        scale: w: a number or a function of the level, or a dict with one for each part.
        rescale: as in `srk.Guided`, for all parts.

    Raises:
        ArgumentTypeError: the two are not predictions of a product.

    Source: Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022.

    Examples:
        >>> import srk
        >>> def network(x, t, label):
        ...     return {name: 0 * part + label for name, part in x.items()}
        >>> product = srk.Product(a=srk.Flow(t_min=0.0), b=srk.Flow(t_min=0.0))
        >>> joint = srk.scores.Joint(network, a="data", b="data")
        >>> score = srk.scores.JointGuided(
        ...     joint.given(label=1.0), joint.given(label=0.0), {"a": 2.0, "b": 1.0}
        ... )
        >>> sol = srk.solve(product, score, shape={"a": (1, 1), "b": (1, 1)}, steps=3, seed=0)
        >>> sol.x["a"].item(), sol.x["b"].item(), sol.nfe
        (2.0, 1.0, 6)
    """

    def __init__(
        self,
        condition: ProductPrediction,
        reference: ProductPrediction,
        scale: Scale | Mapping[str, Scale] = 2.0,
        *,
        rescale: float = 0.0,
    ) -> None:
        for given in (condition, reference):
            if not isinstance(given, ProductPrediction):
                raise ArgumentTypeError(
                    "guidance of a product takes two predictions of all its parts, e.g. "
                    "srk.scores.JointGuided(joint.given(y=labels), joint.given(y=None), 2.0), not "
                    f"{shown(given)}"
                )
        self.condition, self.reference = condition, reference
        self.scale, self.rescale = scale, rescale

    def bind(self, product: Product) -> BoundPrediction:
        condition, reference = self.condition.bind(product), self.reference.bind(product)
        scales = for_each(self.scale, product.names, "the scale of guidance")
        parts = {
            name: Guided(
                condition.parts[name], reference.parts[name], scales[name], rescale=self.rescale
            )
            for name in product.names
        }
        return BoundPrediction(parts, [*condition.shared, *reference.shared])

    def select(self, rows: slice | Tensor, batch: int) -> JointGuided:
        """The same for some samples of a batch."""
        made = copy.copy(self)
        made.condition = self.condition.select(rows, batch)
        made.reference = self.reference.select(rows, batch)
        return made

    def __repr__(self) -> str:
        return f"JointGuided({self.condition!r}, {self.reference!r}, {self.scale!r})"
