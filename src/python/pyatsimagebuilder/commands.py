"""``pyats image``: the program as a command of pyATS, which finds it by its entry point."""

from __future__ import annotations

import os
import sys

from pyats.cli.base import Command  # type: ignore[import-not-found,import-untyped,unused-ignore]

from ._tool import program

_COMMANDS = {
    "build": "Build an image from a YAML file",
    "push": "Push an image to a registry",
    "inspect": "Show an image as `docker image inspect` does",
    "run": "Run a command in an image",
    "tag": "Give an image more tags",
    "cache": "Look at what the store holds, and remove what is not needed",
    "doctor": "Say what this machine allows, and the remedy for what it does not",
    "login": "Keep a login for a registry",
    "logout": "Forget the login for a registry",
    "schema": "Print the JSON Schema of build files",
}


class ImageCommand(Command):  # type: ignore[misc,unused-ignore]
    """``pyats image COMMAND …``: the program takes the place of pyATS, with all that follows."""

    name = "image"
    help = "Image related features"
    description = "Builds container images for pyATS jobs, without Docker, and uses them."
    standard_logging = False

    def __init__(self, prog: str) -> None:
        super().__init__(prog)
        self.add_general_opts(self.parser)
        commands = self.parser.add_subparsers(title="Subcommands", dest="command", metavar="")
        for name, text in _COMMANDS.items():
            commands.add_parser(name, help=text, add_help=False)

    def main(self, argv: list[str]) -> None:
        """Runs the program with the arguments behind ``pyats image``."""
        if not argv or argv[0] not in _COMMANDS:
            # Shows the help, or what is wrong.
            self.parser.parse_args(argv)
            self.parser.print_help()
            self.parser.exit()
        # A build is what the program does without a command.
        is_build = argv[0] == "build"
        name = f"{self.prog} build" if is_build else self.prog
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(program(), [name, *(argv[1:] if is_build else argv)])
