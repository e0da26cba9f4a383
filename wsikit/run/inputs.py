"""What a survival model is given of a slide's tiles: nothing of a slide that other models give no answer on."""

from __future__ import annotations

from collections.abc import Mapping

from wsikit.aggregate.doubt import poor_quality, unknown_colours
from wsikit.aggregate.features import Inputs, is_measured
from wsikit.aggregate.survival import CoxRisk, needed_inputs
from wsikit.models import Card
from wsikit.run.quality import quality_summary
from wsikit.run.stains import stain_of
from wsikit.store import SlideStore


def tile_inputs(store: SlideStore, model: CoxRisk, cards: Mapping[str, Card]) -> Inputs | None:
    """What a survival model needs that is measured on a slide's tiles; None when nothing is.

    Of a slide on whose quality or colours an answer is withheld nothing is measured either: ``reason`` says why.
    """
    inputs, spec = needed_inputs(model, store), model.spec
    if inputs is None:
        return None
    names = [*spec.features, *(spec.signature.inputs if spec.signature else [])]
    owners = {n.partition(".")[0] for n in names if is_measured(n)} | ({spec.signature.pipeline} if spec.signature else set())
    colours = (unknown_colours(cards[n], stain_of(store.attributes, cards[n])) for n in sorted(owners & cards.keys()) if n in store.attributes["stages"])
    reason = poor_quality(quality_summary(store)["tiles"]) or next(filter(None, colours), "")
    return Inputs(reason=reason) if reason else inputs
