"""A real nginx before the archive, as hospitals put one: TLS with a certificate of the test's own authority."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.orthanc import free_port, program

_SETTINGS = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log {folder}/access.log; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port} ssl; server_name localhost;
    ssl_certificate {certificate}; ssl_certificate_key {key};
    location / {{ {inside} }}
  }}
}}
"""


@contextmanager
def nginx(folder: Path, certificate: tuple[Path, Path], inside: str) -> Iterator[int]:
    """Run until the block ends; gives the port. `inside` is what stands in `location /`."""
    path = program("nginx", "nginx")
    for left in reversed(range(3)):
        port = free_port()
        run = folder / str(port)
        run.mkdir(parents=True)
        text = _SETTINGS.format(
            folder=run, port=port, certificate=certificate[0], key=certificate[1], inside=inside
        )
        (run / "nginx.conf").write_text(text)
        process = subprocess.Popen(
            [path, "-p", str(run), "-c", str(run / "nginx.conf")], stderr=subprocess.DEVNULL
        )
        if _up(process, port):
            break
        process.kill()
        process.wait()
        assert left, (run / "error.log").read_text()
    try:
        yield port
    finally:
        process.terminate()
        process.wait(timeout=20)


def _up(process: subprocess.Popen[bytes], port: int) -> bool:
    until = time.monotonic() + 20
    while time.monotonic() < until and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return True
        except OSError:
            time.sleep(0.05)
    return False
