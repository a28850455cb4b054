"""The command line. Sub-commands are loaded when they are called, so `mixctl --help` is instant.

Exit codes: 0 done; 1 a finished build does not verify, a scorer failed, tasks of a cluster did not
end, or the system refused a write (a full disk); 2 wrong usage or wrong input; 130 Ctrl-C, 143
SIGTERM.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from importlib import import_module
from typing import NoReturn

import click

from mixctl.pipeline.interrupt import InterruptHandler, catch_signals, end_children, end_now
from mixctl.shards.errors import InputError, StageError, VerificationError

UNEXPECTED = 70
"""the exit code of an error that no message foresees (EX_SOFTWARE of sysexits.h)"""

_COMMANDS = {
    "init": ("mixctl.pipeline.commands_init", "init", "Write a commented starter mix."),
    "check": ("mixctl.pipeline.commands", "check", "Validate everything, write nothing."),
    "plan": (
        "mixctl.pipeline.commands",
        "plan",
        "Show what would be built: doses, shares, schedule.",
    ),
    "build": ("mixctl.pipeline.commands", "build", "Build the shards of a mix."),
    "relayout": (
        "mixctl.pipeline.commands",
        "relayout",
        "Lay a finished build out for another topology.",
    ),
    "amend": (
        "mixctl.pipeline.amend_command",
        "amend",
        "Place more in the steps still ahead of a build.",
    ),
    "control": (
        "mixctl.pipeline.control_command",
        "control",
        "Train in a closed loop: probes decide what comes next.",
    ),
    "verify": ("mixctl.pipeline.commands", "verify", "Read a build back through the stock loader."),
    "diff": ("mixctl.pipeline.commands_diff", "diff", "Say what changed between mixes or builds."),
    "preflight": (
        "mixctl.pipeline.preflight_command",
        "preflight",
        "Check shards, config, disk and loader before a run.",
    ),
    "show": ("mixctl.pipeline.commands", "show", "Print decoded placements, payload marked."),
    "eval": ("mixctl.evals.cli", "eval_command", "Score every experiment on checkpoints."),
    "report": ("mixctl.evals.cli", "report_command", "Write report.html of an eval."),
    "log": (
        "mixctl.evals.cli",
        "log_command",
        "Log results to TensorBoard or Weights & Biases.",
    ),
    "cpdt": (
        "mixctl.pipeline.cpdt_commands",
        "cpdt",
        "Test whether experiments disturb one another.",
    ),
    "export": (
        "mixctl.pipeline.commands_exchange",
        "export_group",
        "Write questions and results as lm-evaluation-harness has them.",
    ),
    "import": (
        "mixctl.pipeline.commands_exchange",
        "import_group",
        "Read lm-eval tasks and scores, and data sets.",
    ),
    "schema": ("mixctl.pipeline.commands", "schema", "Print the JSON Schema of the mix file."),
    "demo": ("mixctl.pipeline.commands", "demo", "All of it, small, on a corpus of the install."),
}


class _LazyGroup(click.Group):
    """A group whose commands live in modules that are imported when needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        command = getattr(import_module(module), attribute)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from mixctl.shards.errors import nearest

        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"no such command '{args[0]}'{nearest(args[0], _COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: mixctl init first, or mixctl demo --quick",
)
@click.version_option(package_name="mixctl", prog_name="mixctl")
def cli() -> None:
    """Many pretraining experiments in one training run.

    mixctl interleaves the payloads of many experiments into a base corpus at exactly known places,
    an unmodified `litgpt pretrain` trains on the shards, and `mixctl eval` scores every experiment
    on every checkpoint.
    """


def run() -> NoReturn:
    """Runs the command line, and ends the process: the program that is installed as `mixctl`.

    What is in memory is not torn down piece by piece, which takes half a second with torch.
    """
    exit_code = 0
    try:
        main()
    except SystemExit as end:
        match end.code:
            case int():
                exit_code = end.code
            case str():  # a library's way to end a program with a word
                exit_code = _complain([end.code], 1)
    end_now(exit_code)


def main() -> None:
    """Runs the command line; wrong input ends with exit code 2, a broken build with 1."""
    signals = catch_signals()
    try:
        cli.main(standalone_mode=False)
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):  # click makes the one of the other
        _interrupted(signals)
    except Exception as error:
        if signals.seen is not None:  # met in an import, say, a signal comes out as another error
            _interrupted(signals)
        sys.exit(_exit_code(error))


def _interrupted(signals: InterruptHandler) -> NoReturn:
    """Ends the processes that are left, and this one, whatever its other threads wait for."""
    number = signals.seen or signal.SIGINT
    end_children()
    word = "terminated" if number == signal.SIGTERM else "interrupted"
    click.echo(f"{word}; what is done is kept: the same command goes on from there", err=True)
    end_now(128 + number)


def _exit_code(error: Exception) -> int:
    """Returns the exit code of an error, after saying what it was."""
    match error:
        case click.exceptions.Exit():
            return error.exit_code
        case click.ClickException():
            error.show()
            return error.exit_code
        case InputError():
            return _complain(error.problems, 2)
        case VerificationError():
            return _complain(error.findings, 1)
        case StageError():
            return _complain([str(error)], 1)
        case RuntimeError() if "torchvision::nms" in str(error):
            why = "torchvision does not fit this torch: pip uninstall torchvision"
            return _complain([why], 2)
        case BrokenPipeError():
            return 0
        case OSError() if error.errno is not None:
            return _complain([_refused(error, error.errno)], 1)
    traceback.print_exception(error)
    why = "this is a defect of mixctl, please report it with the lines above"
    return _complain([why], UNEXPECTED)


def _refused(error: OSError, number: int) -> str:
    """Returns what the system refused."""
    place = f"{error.filename}: " if error.filename else ""
    known = number in errno.errorcode  # other libraries have sentences of their own
    why = os.strerror(number) if known else error.strerror or error
    return f"{place}{why}; what is done is kept: the same command goes on from there"


def _complain(problems: list[str], exit_code: int) -> int:
    """Returns the exit code, after saying what is wrong."""
    for problem in problems:
        click.echo(f"error: {problem}", err=True)
    return exit_code


if __name__ == "__main__":
    run()
