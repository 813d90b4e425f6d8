"""The ``bus`` command. Commands that change something go through serve's HTTP API, so that one process writes."""


def main() -> None:
    """Runs the command; imported late so that parts of the command line can be used alone."""
    from bus.cli.main import main as run

    run()


__all__ = ["main"]
