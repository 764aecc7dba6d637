"""Problems of a configuration, all of them, one line each."""

from reconciler.cli.output import Output
from reconciler.settings.problems import SettingsError


def complain_of_all(error: SettingsError, output: Output) -> None:
    """Say everything that is wrong."""
    for problem in error.problems:
        output.complain(str(problem))
