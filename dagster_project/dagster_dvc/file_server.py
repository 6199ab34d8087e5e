"""Serves what the stages made, and nothing else, on this machine: a browser opens no file from Dagster's pages.

Links in the metadata begin with the address in the environment variable ``DVC_FILES_URL``; without it they are paths.
"""

from __future__ import annotations

import os
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import dagster as dg

from .pipeline import read_pipeline

URL_VARIABLE = "DVC_FILES_URL"


def link(root: Path, path: str) -> dg.MetadataValue[Any]:
    """A link to an output, or to the ``index.html`` in it; a path on this machine where nothing serves it."""
    target = root / path
    page = target / "index.html" if (target / "index.html").exists() else target
    base = os.environ.get(URL_VARIABLE)
    if base and page.suffix == ".html":
        return dg.MetadataValue.url(f"{base.rstrip('/')}/{quote(page.relative_to(root).as_posix())}")
    return dg.MetadataValue.path(str(page))


def serve(root: Path, *, port: int) -> None:
    """Serve the outputs of the pipeline on loopback until interrupted."""
    with make_server(root, port=port) as server:
        server.serve_forever()


def make_server(root: Path, *, port: int) -> ThreadingHTTPServer:
    """A server on loopback that gives the outputs of the pipeline; any free port for 0."""
    return ThreadingHTTPServer(("127.0.0.1", port), partial(OutputsHandler, directory=str(root)))


class OutputsHandler(SimpleHTTPRequestHandler):
    """Gives files of outputs; the folder is the project's."""

    def send_head(self) -> Any:
        """Refuse what is no output before anything is opened."""
        root = Path(self.directory).resolve()
        wanted = (root / unquote(urlsplit(self.path).path).lstrip("/")).resolve()
        outputs = [(root / output.path) for stage in read_pipeline(root).stages for output in stage.outputs]
        if not any(wanted == path or path in wanted.parents for path in outputs):
            self.send_error(HTTPStatus.NOT_FOUND, "no stage makes this file")
            return None
        return super().send_head()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal belongs to Dagster."""
