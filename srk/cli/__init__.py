"""The command line: `srk solvers` and its siblings print what is registered, `srk demo` runs the library on real data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from srk._version import __version__
from srk.cli import cite, grid, sample
from srk.errors import ArgumentError, SRKError

if TYPE_CHECKING:
    from srk.registry import Registry

WORDS = 24  # a column with a cell longer than this holds words, which wrap; any other holds names and numbers, which do not

app = typer.Typer(
    name="srk",
    help="Reverse diffusion processes: solvers, processes, tableaus, comparisons, and a demo on real data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"srk {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    pass


@app.command()
def solvers() -> None:
    """List the solvers: cost, orders, eta, when to use."""
    from srk.integrators import SOLVERS

    Console().print(registry_lines(SOLVERS))


@app.command()
def processes() -> None:
    """List the forward processes."""
    from srk.processes import PROCESSES

    Console().print(registry_lines(PROCESSES))


@app.command()
def tableaus() -> None:
    """List the stochastic Runge-Kutta tableaus; each is also a solver."""
    from srk.tableaus import TABLEAUS

    Console().print(registry_lines(TABLEAUS))


@app.command()
def controllers() -> None:
    """List the step controllers: fixed grids and adaptive."""
    from srk.control import CONTROLLERS

    Console().print(registry_lines(CONTROLLERS))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the picture and the table.", file_okay=False)] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Seed of every run.")] = 0,
    nfe: Annotated[list[int] | None, typer.Option(help="Network evaluations, repeatable. Else 10, 20, 50.", min=1)] = None,
) -> None:
    """Sample handwritten digits with several solvers; print a table, write a picture (under two minutes, nothing downloaded)."""
    from srk.demo import main as run

    run(out=out, seed=seed, nfe=nfe or [10, 20, 50])


@app.command()
def check(file: Annotated[Path, typer.Argument(help="TOML file with the tableau; its fields: StochasticTableau.from_dict.")]) -> None:
    """Check the order conditions of a tableau; exit status 1 if they do not support the orders that it declares."""
    from srk.tableaus import StochasticTableau, check_tableau, require_order

    tableau = StochasticTableau.from_toml(file)
    report = check_tableau(tableau)
    # Text: a condition may hold "[", which rich takes for markup in a str.
    Console(soft_wrap=True).print(Text(repr(report)))
    require_order(tableau)  # raises what is wrong, which is then the message


@app.command()
def validate(
    steps: Annotated[int, typer.Option(help="Steps of each run; --slopes has its own.", min=2)] = 12,
    seed: Annotated[int, typer.Option(help="Seed of starts and paths.")] = 0,
    slopes: Annotated[bool, typer.Option("--slopes", help="The strong orders of both instead, side by side on the same paths.")] = False,
) -> None:
    """Compare our solvers with torchsde's, path by path; exit status 1 unless every step agrees to 1e-10 (needs torchsde)."""
    from srk.analysis.slopes import EQUAL, TOLERANCE, torchsde_slopes
    from srk.analysis.validation import BOUND, torchsde_agreement

    console = Console()
    with console.status("running torchsde and srk on the same paths") as status:
        if slopes:
            orders = torchsde_slopes(seed=seed, watch=lambda row: status.update(f"{row.process}, {row.frame}, {row.method}"))
        else:
            agreement = torchsde_agreement(
                steps=steps, seed=seed, watch=lambda row: status.update(f"{row.process}, {row.frame}, {row.dimension}-D, {row.grid}")
            )
    if slopes:
        console.print(_table(f"strong orders of torchsde {orders.version} and of srk on the same paths", *orders.cells(), words=3))
        console.print(
            f"largest difference {max(row.difference for row in orders.rows):.1e}; bounds {EQUAL:g}, and {TOLERANCE:g} of the declared order"
        )
        if not orders.success:
            raise typer.Exit(1)
        return
    title = f"largest relative difference to torchsde {agreement.version} over all steps of {len(agreement.rows)} runs"
    console.print(_table(title, *agreement.cells(), words=2))
    worst = agreement.worst
    place = f"{worst.method} and our {worst.ours}, {worst.process}, {worst.frame}, {worst.dimension}-D"
    console.print(f"worst {worst.difference:.1e} ({place}); bound {BOUND:g}")
    if not agreement.success:
        raise typer.Exit(1)


@app.command()
def compare(
    out: Annotated[Path, typer.Option(help="Folder for table and plot; a stopped run continues.", file_okay=False)] = Path("compare"),
    process: Annotated[str, typer.Option(help="A process of `srk processes`.")] = "vp",
    target: Annotated[str, typer.Option(help="digits, fashion or mixture: data whose score is exact.")] = "digits",
    solvers: Annotated[str, typer.Option(help="Solvers of `srk solvers`, with commas.")] = "srk2m,srk2,ddpm",
    nfe: Annotated[str, typer.Option(help="Budgets of network calls, with commas.")] = "8,16,32",
    metrics: Annotated[str, typer.Option(help="Out of sliced-w2, energy, mmd, mean, covariance.")] = "sliced-w2,energy,covariance",
    grids: Annotated[str, typer.Option(help="Grids of `srk controllers`, with commas; each with each solver.")] = "",
    samples: Annotated[int, typer.Option(help="Samples of each run.", min=2)] = 2000,
    repeats: Annotated[int, typer.Option(help="Runs of each solver and budget.", min=1)] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the first repeat.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
) -> None:
    """Compare solvers at equal numbers of network calls; write table (JSON, CSV, Markdown) and plot."""
    from srk.analysis.compare import compare as run
    from srk.problems import named_problem

    chosen, exact = named_problem(process, target)
    result = run(
        names(solvers),
        chosen,
        exact.score(chosen),
        exact,
        nfe=numbers(nfe),
        metrics=names(metrics),
        grids=names(grids) or None,
        repeats=repeats,
        samples=samples,
        seed=seed,
        device=device,
        resume=out / "compare.json",
        progress=True,
    )
    console = Console()
    console.print(result.table())
    console.print(f"wrote {', '.join(path.name for path in result.save(out))} into {out}")


app.command()(sample.sample)
app.command()(grid.grid)
app.command()(cite.cite)


def _table(title: str, header: list[str], body: list[list[str]], words: int) -> Table:
    """A table whose first `words` columns are words and whose others are numbers."""
    table = Table(title=title, title_justify="left")
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i < words else "right")
    for row in body:
        table.add_row(*(Text(cell) for cell in row))  # Text: a cell may hold "[0, 1]", which rich takes for markup in a str
    return table


def numbers(text: str) -> list[int]:
    """The integers of a list with commas."""
    try:
        return [int(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise ArgumentError(f"{text!r} is not a list of whole numbers with commas; e.g. 8,16,32") from None


def names(text: str) -> list[str]:
    """The words of a list with commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def registry_lines(registry: Registry[Any]) -> Group:
    """The registry for a terminal of any width: a line of short cells per entry, its words indented below."""
    table = [["name", *registry.columns], *registry.rows()]
    widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
    header, *rows = ([(cell, width) for cell, width in zip(row, widths, strict=True)] for row in table)

    def line(row: list[tuple[str, int]], style: str) -> Text:
        return Text("  ".join(cell.ljust(width) for cell, width in row if width <= WORDS).rstrip(), style)

    # Text, not str: a cell may hold "[0, 1]", which rich takes for markup in a str.
    lines: list[RenderableType] = [line(header, "bold")]
    for row in rows:
        lines.append(line(row, "cyan"))
        lines.extend(Padding(Text(cell), (0, 0, 0, 4)) for cell, width in row if width > WORDS and cell)
    return Group(*lines)


def main() -> None:
    """Entry point of the `srk` command: our own errors are a message and exit status 1, not a traceback."""
    try:
        app()
    except SRKError as error:
        Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), str(error)))
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
