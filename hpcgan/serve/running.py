"""A service that runs: its socket, its token, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import secrets
import signal
import socket
import stat
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette

from hpcgan.errors import HpcganError, InputError
from hpcgan.serve.http import application
from hpcgan.serve.service import Service
from hpcgan.system import files

LOOK_S = 0.2
"""Between two looks at whether there are workers."""
MOST_CONNECTIONS = 1024


@dataclass(frozen=True)
class Where:
    """Where a service listens.

    Attributes
    ----------
    host : str
    port : int
        0: any that is free.
    grpc_port : int or None
        None: HTTP only.
    token_file : Path or None
        Holds what clients have to show; made, with a random token, if there is none.
    address_file : Path or None
        Written once the service is ready, and removed at its end: for clients that have to find it.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = None
    token_file: Path | None = None
    address_file: Path | None = None


def is_local(host: str) -> bool:
    """Whether only this machine can reach it there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(where: Where) -> str | None:
    """What clients have to show; None: nothing.

    Raises
    ------
    InputError
        Others could reach the service without a token; or a file for one that cannot be used, or that others can read.
    """
    path = where.token_file
    if path is None:
        if not is_local(where.host):
            raise InputError(f"--host {where.host}: other machines can reach it there; give --token-file FILE as well")
        return None
    try:
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise InputError(f"{path}: others can read the token; chmod 600 it")
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no token can be read ({error})") from None
    if len(token) < 16 or not token.isprintable() or " " in token:
        raise InputError(f"{path}: needed is one word of at least 16 characters; remove the file to have one made")
    return token


def listen(host: str, port: int, option: str = "--port") -> socket.socket:
    """A socket on which connections are waited for.

    Raises
    ------
    InputError
        The place is taken, or there is no such place.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"--host {host}: {error.strerror}") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(256)
    except OSError as error:
        bound.close()
        raise InputError(
            f"{option} {port}: {host} cannot be listened on ({error.strerror}); give another one"
        ) from None
    return bound


def run(service: Service, where: Where, say: Callable[[str], None]) -> None:
    """Serve until a signal asks for the end; what was accepted by then is finished.

    Parameters
    ----------
    service : Service
    where : Where
    say : callable
        Takes a line once the service is ready.

    Raises
    ------
    InputError
        As of `read_token` and `listen`.
    HpcganError
        There are no workers any more, or the ones there are cannot load a generator.
    """
    token = read_token(where)
    if where.grpc_port:  # gRPC binds it for itself, when it is too late for a message
        listen(where.host, where.grpc_port, "--grpc-port").close()
    bound = listen(where.host, where.port)
    host = f"[{where.host}]" if ":" in where.host else where.host
    reach = socket.gethostname() if where.host in ("0.0.0.0", "::") else host
    address: dict[str, Any] = {"url": f"http://{reach}:{bound.getsockname()[1]}"}

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.start()
        async with contextlib.AsyncExitStack() as stack:
            if where.grpc_port is not None:
                from hpcgan.serve.rpc import serving

                port = await stack.enter_async_context(serving(service, token, where.host, where.grpc_port))
                address["grpc"] = f"{reach}:{port}"
            watching = asyncio.create_task(_watch(service, server, lambda: _announce(service, where, address, say)))
            try:
                yield
            finally:
                watching.cancel()
        await asyncio.to_thread(service.close)

    config = uvicorn.Config(
        application(service, token, lifespan),
        log_level="warning",
        access_log=False,
        lifespan="on",
        loop="asyncio",
        http="h11",
        ws="none",
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=int(service.limits.timeout_s) + 1,
    )
    server = uvicorn.Server(config)
    # uvicorn, which stops in order at the first SIGINT or SIGTERM and at once at a SIGINT after it, sends itself the
    # signal again at the end, in case that somebody else is to know of it.
    with _replaced(signal.SIGTERM, signal.SIGINT):
        try:
            server.run(sockets=[bound])
        finally:
            bound.close()
            if where.address_file is not None:
                where.address_file.unlink(missing_ok=True)
    if service.workers.failure is not None:
        raise HpcganError(service.workers.failure)
    if not server.started:
        raise HpcganError("the service did not start, see above")


@contextlib.contextmanager
def _replaced(*numbers: signal.Signals) -> Any:
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _announce(service: Service, where: Where, address: dict[str, Any], say: Callable[[str], None]) -> None:
    if where.address_file is not None:
        files.write_atomic(where.address_file, json.dumps(address) + "\n")
    places = ", ".join([address["url"], *(f"gRPC {address[name]}" for name in ("grpc",) if name in address)])
    models = ", ".join(f"{model.name} (step {service.version(model)})" for model in service.models)
    say(f"{places}: {models}")


async def _watch(service: Service, server: uvicorn.Server, announce: Callable[[], None]) -> None:
    """Say when the service is ready, and end it when it cannot go on."""
    is_announced = False
    while service.workers.failure is None:
        if service.is_ready and not is_announced:
            try:
                announce()
            except OSError as error:
                service.workers.failure = f"{error.filename}: {error.strerror}"
                break
            is_announced = True
        await asyncio.sleep(LOOK_S)
    server.should_exit = True
