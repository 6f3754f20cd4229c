"""A prediction made of other networks in place of its own."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from srk.errors import IncompatibleError
from srk.scores.base import Prediction
from srk.scores.guidance import Guided
from srk.scores.network_prediction import NetworkPrediction


def rewired(
    prediction: Prediction,
    change: Callable[[NetworkPrediction], Prediction],
    what: str,
) -> Prediction:
    """The same prediction with each of its networks changed.

    Arguments:
        prediction: an adapter, or guidance made of adapters.
        change: gives another adapter for one.
        what: who needs it, for messages.

    Raises:
        IncompatibleError: it is another prediction, which looks at whole samples.
    """
    if isinstance(prediction, NetworkPrediction):
        return change(prediction)
    if isinstance(prediction, Guided):
        if prediction.rescale:
            raise IncompatibleError(
                f"{what} cannot be rescaled (rescale={prediction.rescale!r}): the standard "
                "deviation of a sample mixes elements of different noise; leave it out"
            )
        conditions = [rewired(one, change, what) for one in prediction.conditions]
        reference = rewired(prediction.reference, change, what)
        return attrs.evolve(prediction, condition=conditions, reference=reference, batched=False)
    raise IncompatibleError(
        f"{what} needs a network in one of the adapters, which gets times of shape (batch, "
        "elements), or srk.Guided of such networks, e.g. srk.solve(srk.VP(), srk.Data(network), "
        f"...), not {prediction!r}, which looks at whole samples of one noise level"
    )
