"""`hpcgan pretrained`: the generators that come with the package."""

from __future__ import annotations

import argparse
import json

from hpcgan.errors import EXIT_DONE


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "pretrained",
        description="List the generators that come with the package. 'pretrained:NAME' takes the place of a run in "
        "'generate', 'evaluate', 'export', 'overlay' and training.start_from.",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Print them."""
    from hpcgan.runs import pretrained

    cards = {name: pretrained.card(name) for name in pretrained.names()}
    if args.json:
        print(json.dumps({name: card.model_dump() for name, card in cards.items()}, indent=2))
        return EXIT_DONE
    for name, card in cards.items():
        print(f"{pretrained.PREFIX}{name}  {card.title} ({pretrained.size(name) / 1e6:.1f} MB, {card.licence})")
        print(f"  {card.recipe}, {card.trained}; {card.data}")
        for number in card.scores:
            error = "" if number.error is None else f" +- {number.error:g}"
            real = f" (real events: {number.real})" if number.real else ""
            print(f"  {number.name} {number.value:g}{error} at N={card.events}{real}")
    return EXIT_DONE
