"""Arguments, options and their types that several commands share."""

from __future__ import annotations

import math
from typing import Any

import click


class InOrder(click.Group):
    """Its commands are listed as a user needs them, not by the alphabet."""

    group_class = type

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class Whole(click.IntRange):
    # As in "'x' is not a valid whole number".
    name = "whole number"


class Days(click.FloatRange):
    name = "number of days"

    def convert(
        self,
        value: Any,  # noqa: ANN401  # whatever click has
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        days = float(super().convert(value, param, ctx))
        # No comparison with a range finds it.
        if math.isnan(days):
            self.fail(f"{value!r} is not a valid {self.name}", param, ctx)
        return days


class WholeOrNone(Whole):
    """Takes an empty text too, which stays one."""

    def convert(
        self,
        value: Any,  # noqa: ANN401  # whatever click has
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401  # a whole number or ""
        return "" if value == "" else super().convert(value, param, ctx)


categories_argument = click.argument("categories", metavar="[CATEGORY]...", nargs=-1)
run_argument = click.argument("run")
name_argument = click.argument("name")
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as JSON on stdout."
)
accept_option = click.option(
    "--accept-host-key",
    "accept",
    metavar="SHA256:...",
    default="",
    help="Trust this host key without asking; compare it first.",
)
