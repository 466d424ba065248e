"""Arguments, options and their types that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class InOrder(click.Group):
    """Its commands are listed as a user needs them, not by the alphabet."""

    group_class = type

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class App(InOrder):
    """The command line as a whole, in which the command `run` may be left out."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # A shell asks about what was typed so far.
        return super().parse_args(ctx, self.expand(args) if ctx.resilient_parsing else args)

    def expand(self, arguments: Sequence[str]) -> list[str]:
        """The arguments with what may be left out: `train --remote X`, `train category3`."""
        own = {"-h", "--help", "--version", "--install-completion", "--show-completion"}
        if not arguments or arguments[0] in own or arguments[0] in self.commands:
            return list(arguments)
        return ["run", *arguments]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        run = self.commands["run"]
        if incomplete.startswith("-"):
            more = run.shell_complete(click.Context(run, ctx), incomplete)
        else:
            more = run.params[0].shell_complete(ctx, incomplete)
        return [*super().shell_complete(ctx, incomplete), *more]


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


Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def _offer(names: Callable[[], Sequence[str]]) -> Complete:
    """Those of the names that begin with what was typed, and were not typed before."""

    def offer(ctx: click.Context, param: click.Parameter, typed: str) -> list[str]:
        before = ctx.params.get(param.name or "") or ()
        return [name for name in names() if name.startswith(typed) and name not in before]

    return offer


# What reads the user's files is imported when a shell asks.
@_offer
def offer_categories() -> Sequence[str]:
    from orchestrator.candidates import category_names

    return category_names()


@_offer
def offer_runs() -> Sequence[str]:
    from orchestrator.candidates import run_ids

    return run_ids()


@_offer
def offer_categories_and_runs() -> Sequence[str]:
    from orchestrator.candidates import category_names, run_ids

    return [*category_names(), *run_ids()]


@_offer
def offer_remotes() -> Sequence[str]:
    from orchestrator.candidates import remote_names

    return remote_names()


@_offer
def _offer_params() -> Sequence[str]:
    from orchestrator.candidates import param_names

    return param_names()


categories_argument = click.argument(
    "categories", metavar="[CATEGORY]...", nargs=-1, shell_complete=offer_categories
)
category_argument = click.argument("category", shell_complete=offer_categories)
run_argument = click.argument("run", shell_complete=offer_categories_and_runs)
name_argument = click.argument("name", shell_complete=offer_remotes)
any_name_argument = click.argument("name", default="", shell_complete=offer_remotes)
param_option = click.option(
    "--param",
    "-p",
    metavar="K=V",
    multiple=True,
    help="Given to the script as PARAM_K.",
    shell_complete=_offer_params,
)
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
