"""`python -m bus.infra.stack.compose FOLDER WEB-URL`: OPA's files for docker-compose.yml, and the keys of the bus.

OPA's image has no shell and compose cannot hash, so a one-shot container of the bus writes what OPA starts with.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from bus.errors import SetupError
from bus.infra.stack.credentials import Secrets
from bus.infra.stack.files import private_folder, write_private
from bus.infra.stack.opa import BUNDLE_KEY, BUNDLE_TOKEN, configuration

_SHORTEST_TOKEN = 32


def write_opa_files(folder: Path, web: str, environment: Mapping[str, str]) -> None:
    """Write OPA's files into `folder`; token and home come from ``BUS_OPA_TOKEN`` and ``BUS_HOME``.

    Raises SetupError if the token is too short to be a secret.
    """
    token = environment.get("BUS_OPA_TOKEN", "")
    if len(token) < _SHORTEST_TOKEN:
        why = f"BUS_OPA_TOKEN has fewer than {_SHORTEST_TOKEN} characters"
        raise SetupError(why=why, ways_out="set it to the output of `openssl rand -hex 32`")
    secrets = Secrets(Path(environment["BUS_HOME"]))
    private_folder(folder)
    write_private(folder / "bundle.token", secrets.token(BUNDLE_TOKEN))
    files = configuration(
        web,
        token=token,
        bundle_token_path=folder / "bundle.token",
        public_key=secrets.public_key(BUNDLE_KEY).read_text(),
    )
    for name, content in files.items():
        write_private(folder / name, content)


if __name__ == "__main__":
    try:
        write_opa_files(Path(sys.argv[1]), sys.argv[2], os.environ)
    except SetupError as error:
        sys.exit(error.detail)
