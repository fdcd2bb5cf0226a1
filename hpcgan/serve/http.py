"""The service over HTTP: the Open Inference Protocol, health, and metrics, as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request as Call
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

import hpcgan
from hpcgan.data.schema import Sample
from hpcgan.errors import InputError
from hpcgan.serve import metrics, protocol
from hpcgan.serve.refusal import Refusal
from hpcgan.serve.service import Model, Service

HEALTH = "/v2/health/"
"""What needs no token begins with this."""
DISCARDED_BODIES = 8
"""As many limits of a body are read of one that is too large, so that its client gets to read the answer."""


class ClientLeft(Exception):
    """The client has closed its connection."""


def application(
    service: Service, token: str | None, lifespan: Callable[[Starlette], contextlib.AbstractAsyncContextManager[None]]
) -> Starlette:
    """The service as an ASGI application.

    Parameters
    ----------
    service : Service
    token : str or None
        What clients have to show, except for health: `Authorization: Bearer TOKEN`.
    lifespan : callable
        Starlette's: what is done around all requests.
    """

    async def live(call: Call) -> Response:
        return JSONResponse({"live": True})

    async def ready(call: Call) -> Response:
        return JSONResponse({"ready": service.is_ready}, 200 if service.is_ready else 503)

    async def server(call: Call) -> Response:
        about = {"name": "hpcgan", "version": hpcgan.__version__, "extensions": list(protocol.EXTENSIONS)}
        return JSONResponse({**about, "models": [model.name for model in service.models]})

    def model_of(call: Call) -> Model:
        return service.model(call.path_params["name"], call.path_params.get("version", ""))

    async def about_model(call: Call) -> Response:
        return JSONResponse(service.metadata(model_of(call)))

    async def model_ready(call: Call) -> Response:
        model = model_of(call)
        return JSONResponse({"name": model.name, "ready": service.is_ready}, 200 if service.is_ready else 503)

    async def numbers(call: Call) -> Response:
        return Response(service.metrics.text(), media_type=metrics.CONTENT_TYPE)

    infer = Inference(service)
    models = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
    return Starlette(
        routes=[
            Route(f"{HEALTH}live", live),
            Route(f"{HEALTH}ready", ready),
            Route("/v2", server),
            *(Route(path, about_model) for path in models),
            *(Route(f"{path}/ready", model_ready) for path in models),
            *(Route(f"{path}/infer", infer, methods=["POST"]) for path in models),
            Route("/metrics", numbers),
        ],
        middleware=[] if token is None else [Middleware(Token, token=token)],
        exception_handlers={
            Refusal: _say_refusal,
            HTTPException: _say_refusal,
        },
        lifespan=lifespan,
    )


def _refused(status: int, reason: str) -> JSONResponse:
    headers = {"Retry-After": "1"} if status == 503 else None
    return JSONResponse({"error": reason}, status, headers)


async def _say_refusal(call: Call, error: Exception) -> Response:
    if isinstance(error, HTTPException):  # Starlette's: no such path or method
        return _refused(error.status_code, error.detail)
    assert isinstance(error, Refusal)
    return _refused(error.status, error.reason)


class Token:
    """Refuses whoever does not show the token; health is for everybody."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._expected = app, f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let through, or refuse with 401."""
        if scope["type"] == "http" and not scope["path"].startswith(HEALTH):
            authorization = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(authorization, self._expected):
                await _refused(401, "show the service's token: 'Authorization: Bearer TOKEN'")(scope, receive, send)
                return
        await self._app(scope, receive, send)


class Inference:
    """Requests for events."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one, in the time that there is."""
        call, service, began = Call(scope, receive), self._service, time.monotonic()
        model = service.model(call.path_params["name"], call.path_params.get("version", ""))
        sent = _Sending(send)
        status, events = 200, 0
        try:
            events = await asyncio.wait_for(self._answer(model, call, sent), service.limits.timeout_s)
        except ClientLeft:
            status = 499  # nginx's, since there is none of HTTP
        except (asyncio.TimeoutError, TimeoutError):
            status = 504
            if sent.began:  # to a client that does not read: uvicorn closes the connection, and says so
                return
            await _refused(504, f"took longer than {service.limits.timeout_s:g} s")(scope, receive, send)
        except Refusal as refusal:
            status = refusal.status
            await _refused(status, refusal.reason)(scope, receive, send)
        finally:
            service.count(model, "http", status, began, events)

    async def _answer(self, model: Model, call: Call, sent: _Sending) -> int:
        """Answer, if there is time; number of events."""
        service = self._service
        body = await _read(call, service.limits.body_bytes)
        try:
            request = protocol.read(body, call.headers.get(protocol.HEADER_LENGTH))
        except InputError as error:
            raise Refusal(400, str(error)) from None
        del body
        async with service.making(model, request) as future:
            events = await _unless_left(future, call.receive)
            header, arrays = protocol.write(model.name, service.version(model), request, events)
            await sent.response(header, arrays)
            return len(next(iter(events.values())))


class _Sending:
    """A response on its way: whether its first byte is out."""

    def __init__(self, send: Send) -> None:
        self._send, self.began = send, False

    async def response(self, header: bytes, arrays: list[Any]) -> None:
        length = len(header) + sum(array.nbytes for array in arrays)
        headers = [(b"content-length", str(length).encode())]
        if arrays:
            headers += [
                (b"content-type", b"application/octet-stream"),
                (protocol.HEADER_LENGTH.lower().encode(), str(len(header)).encode()),
            ]
        else:
            headers.append((b"content-type", b"application/json"))
        self.began = True
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._part(header)
        for array in arrays:
            for chunk in protocol.chunks(array):
                await self._part(chunk)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _part(self, body: bytes) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": True})


async def _read(call: Call, most: int) -> bytes:
    """The body of a call.

    Raises
    ------
    Refusal
        It is larger than allowed.
    ClientLeft
        As told.
    """
    parts: list[bytes] = []
    size = 0
    async for message in _messages(call.receive):
        size += len(message)
        if size <= most:
            parts.append(message)
        elif size > DISCARDED_BODIES * most:
            break
        else:
            parts.clear()
    if size > most:
        raise Refusal(413, f"the request has more than {most} bytes; ask for fewer events, or send arrays as bytes")
    return b"".join(parts)


async def _messages(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


async def _unless_left(future: asyncio.Future[Sample], receive: Callable[[], Awaitable[Any]]) -> Sample:
    """The outcome of a future, unless the client leaves before."""
    leaves = asyncio.ensure_future(receive())  # after the body, there is nothing else to come
    try:
        await asyncio.wait([future, leaves], return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            raise ClientLeft
        return future.result()
    finally:
        leaves.cancel()
