"""The command line: text for people on stderr, one JSON object as the last line on stdout."""

import sys
import warnings
from importlib import import_module

import click

import fastcutpaste
from fastcutpaste.console import people
from fastcutpaste.training.allocation import keep_freed_memory

COMMANDS = {  # each in the module of its name, loaded when it is called: --help need not wait for torchvision
    "demo": "Train, score and look through a real texture with planted defects.",
    "inspect": "Tell what in a folder would be read as what.",
    "train": "Train a detector on normal images.",
    "evaluate": "Measure a detector on labelled images.",
    "predict": "Score images and say which are defective.",
    "calibrate": "Set a detector's threshold anew, on new normal images or by hand.",
    "export": "Write a detector as one graph for other runtimes.",
    "preview": "Draw every transform on your images.",
}


class _Commands(click.Group):
    """Know the commands by name before any of them is loaded."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"fastcutpaste.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(fastcutpaste.__version__, package_name="fastcutpaste")
@click.option("--most-pixels", type=click.IntRange(2), default=1_000_000_000, show_default=True,
              help="Images with more are refused: a small file may claim any size.")  # fmt: skip
def app(most_pixels: int) -> None:
    """Find defects in images after training on normal images alone, with synthetic CutPaste defects.

    Start with `fastcutpaste demo`: it downloads nothing and takes about a minute on one CPU core. Then `train` on
    your own normal images, `evaluate` where you have labelled ones, and `predict` on new ones; `calibrate` moves the
    threshold. Each command ends with one JSON object on stdout; everything else goes to stderr.
    """
    from PIL import Image  # --help need not wait for it

    Image.MAX_IMAGE_PIXELS = most_pixels // 2  # Pillow warns from there, and refuses twice as many
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def main() -> None:
    """Run the command line; a user's mistake ends in one line on stderr and an exit status that is not 0."""
    keep_freed_memory()  # a process of its own
    warnings.showwarning = lambda message, *_args, **_kwargs: people.print(f"note: {' '.join(str(message).split())}")
    try:
        app.main(standalone_mode=False, prog_name="fastcutpaste")
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help(), err=True) if error.ctx else None
        sys.exit(2)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "fastcutpaste"
        sys.exit(_complain(f"{error.format_message().rstrip('.')}; see {path} --help", 2))
    except click.ClickException as error:
        sys.exit(_complain(error.format_message(), 2))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(_complain("interrupted", 130))
    except (ValueError, TypeError, OSError, ArithmeticError, ImportError) as error:
        without = isinstance(error, ImportError) and error.name == "torch"
        sys.exit(
            _complain("torch required, but by `predict` of an exported graph, got none" if without else str(error), 1)
        )
    except MemoryError as error:
        sys.exit(_complain(str(error) or "out of memory, try a smaller --batch or --size", 1))
    except RuntimeError as error:
        # torch's, which --help does not load: of a GPU, and of a CPU
        if type(error).__name__ != "OutOfMemoryError" and "DefaultCPUAllocator" not in str(error):
            raise
        sys.exit(_complain(f"out of memory, try a smaller --batch or --size: {error}", 1))


def _complain(message: str, status: int) -> int:
    people.print(f"error: {' '.join(message.split())}")
    return status
