"""``wsikit``: assembles the verbs, and turns errors into one line and an exit code."""

from __future__ import annotations

import importlib
import logging
import sys
import traceback
import warnings
from typing import Annotated, Any, TextIO

import typer

from wsikit import RESEARCH_USE_ONLY, __version__
from wsikit.errors import WsikitError

OK, SOME_FAILED, NOT_DONE, INTERRUPTED = 0, 1, 2, 130
_INTERRUPTED = "interrupted; what is done is kept, run the same command again to go on"
# click's UsageError; newer typer carries its own copy of click, so click's own class would not catch it
_WrongUsage: Any = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="wsikit",
    help=f"Whole-slide analysis for soft-tissue sarcoma.\n\n{RESEARCH_USE_ONLY}",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=True,
)
VERBS = (
    "demo",
    "info",
    "doctor",
    "tile",
    "score",
    "aggregate",
    "view",
    "review",
    "export",
    "report",
    "train",
    "evaluate",
    "calibrate",
    "pipelines",
    "models",
    "verify",
    "diff",
    "cluster",
    "bench",
)
for _verb in VERBS:
    importlib.import_module(f"wsikit.cli.{_verb}").register(app)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"wsikit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks instead of one-line errors.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    settings["debug"] = debug


settings = {"debug": False}


def main(arguments: list[str] | None = None) -> None:
    """Run a command line; leaves with its exit code."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    # --debug is wanted after the verb too, where people add it when something went wrong
    if "--debug" in argv:
        argv = ["--debug", *(a for a in argv if a != "--debug")]
    settings["debug"] = "--debug" in argv
    # Ctrl-C ends an event loop (zarr's) before what it had begun, and Python says so of each when it is collected
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    warnings.showwarning = _warn
    try:
        code = app(argv, prog_name="wsikit", standalone_mode=False)
    except WsikitError as e:
        if settings["debug"]:
            traceback.print_exc()
        fail(str(e))
    except _WrongUsage as e:
        _show_usage(e)
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except Exception as e:
        if settings["debug"]:
            traceback.print_exc()
        fail(_unexpected(e))
    if code == INTERRUPTED:  # newer typer turns Ctrl-C into this code
        logging.getLogger("asyncio").disabled = True  # event loops would complain of what they had begun
        fail(_INTERRUPTED, INTERRUPTED)
    sys.exit(code if isinstance(code, int) else OK)


def _show_usage(error: Any) -> None:
    """One line and where to read on; the whole help where no verb was given."""
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(error.ctx.get_help(), err=True)
        sys.exit(NOT_DONE)
    message = " ".join(error.format_message().split()).rstrip(".")
    fail(f"{message}; see {error.ctx.command_path if error.ctx else 'wsikit'} --help")


def _warn(message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None, line: str | None = None) -> None:
    """Warnings of wsikit as one line, others as Python shows them."""
    own = category.__module__.partition(".")[0] == "wsikit"
    said = f"wsikit: warning: {message}\n" if own else warnings.formatwarning(message, category, filename, lineno, line)
    (file or sys.stderr).write(said)


def _unexpected(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:  # the system says no: to a file, a folder, a full disk
        return f"{error.filename or 'writing or reading'}: {error.strerror}; check the path and its permissions (--debug shows where)"
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text} (run with --debug for the traceback, and please report it)"


def fail(message: str, code: int = NOT_DONE) -> None:
    """Print one line to stderr and leave."""
    print(f"wsikit: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
