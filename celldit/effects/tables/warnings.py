"""What is said of tables that do not help, contradict, or could not be tried."""

from __future__ import annotations

import warnings

from celldit.effects.tables.elsewhere import UNLEARNED, Elsewhere
from celldit.errors import outside


def warn_of_tables(elsewhere: Elsewhere) -> None:
    """Name the tables that are not used, and those whose use nothing has shown."""
    for table in elsewhere.tables:
        text = ""
        if table.contradicts:
            text = (
                f"contradicts the data: perturbations that both have ({len(table.shared)}) go the "
                f"other way (slope {table.contradicts:.2f}). Compare directions, such as "
                "activation and knock-out, and which group is the control. It is not used"
            )
        elif not table.is_used:
            text = (
                f"does not help: {len(table.shared)} perturbations that the data have, too, were "
                "not seen to be predicted better with it than with its rows dealt out at random "
                f"(probability that they belong where they are: {table.reliability:.2f}). It is "
                "not used"
            )
        elif not table.shared:
            amplitude, sd, _ = UNLEARNED
            text = (
                "shares no perturbation with the data, so nothing tells how far it holds here. "
                f"Its effects are used at {amplitude} of their size, give or take {sd}, and "
                "intervals hold that doubt; measure a few of its perturbations to learn it"
            )
        if text:
            said = f"The table of effects {table.name!r} {text}."
            warnings.warn(said, UserWarning, stacklevel=outside())
