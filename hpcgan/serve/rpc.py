"""The service over gRPC: the Open Inference Protocol's `inference.GRPCInferenceService`.

The messages are described here instead of in code that protoc has made: such code works with one major version of
protobuf only, and each TensorFlow has another. What this service does not look at (`parameters`) is left out, and
skipped when it is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import grpc
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

import hpcgan
from hpcgan.errors import InputError
from hpcgan.serve import protocol
from hpcgan.serve.refusal import Refusal
from hpcgan.serve.service import Service

NAME = "inference.GRPCInferenceService"
_MODEL = {"name": (1, "string"), "version": (2, "string")}
_TENSOR = {"name": (1, "string"), "datatype": (2, "string"), "shape": (3, "repeated int64")}
_CONTENTS = {
    "bool_contents": (1, "repeated bool"), "int_contents": (2, "repeated int32"),
    "int64_contents": (3, "repeated int64"), "uint_contents": (4, "repeated uint32"),
    "uint64_contents": (5, "repeated uint64"), "fp32_contents": (6, "repeated float"),
    "fp64_contents": (7, "repeated double"),
}  # fmt: skip
_OF_MODEL = {"model_name": (1, "string"), "model_version": (2, "string"), "id": (3, "string")}
MESSAGES: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "ServerLiveRequest": {},
    "ServerLiveResponse": {"live": (1, "bool")},
    "ServerReadyRequest": {},
    "ServerReadyResponse": {"ready": (1, "bool")},
    "ModelReadyRequest": _MODEL,
    "ModelReadyResponse": {"ready": (1, "bool")},
    "ServerMetadataRequest": {},
    "ServerMetadataResponse": {**_MODEL, "extensions": (3, "repeated string")},
    "ModelMetadataRequest": _MODEL,
    "TensorMetadata": _TENSOR,
    "ModelMetadataResponse": {
        "name": (1, "string"), "versions": (2, "repeated string"), "platform": (3, "string"),
        "inputs": (4, "repeated TensorMetadata"), "outputs": (5, "repeated TensorMetadata"),
    },
    "InferTensorContents": _CONTENTS,
    "InferTensor": {**_TENSOR, "contents": (5, "InferTensorContents")},
    "InferRequestedOutputTensor": {"name": (1, "string")},
    "ModelInferRequest": {
        **_OF_MODEL, "inputs": (5, "repeated InferTensor"), "outputs": (6, "repeated InferRequestedOutputTensor"),
        "raw_input_contents": (7, "repeated bytes"),
    },
    "ModelInferResponse": {
        **_OF_MODEL, "outputs": (5, "repeated InferTensor"), "raw_output_contents": (6, "repeated bytes"),
    },
}  # fmt: skip
"""Fields of each message: number and type. Names of nested messages, which do not travel, are this module's."""

METHODS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_PUBLIC = ("ServerLive", "ServerReady")


@functools.cache
def messages() -> Mapping[str, Any]:
    """The classes of all messages, by name."""
    file = descriptor_pb2.FileDescriptorProto(name="open_inference.proto", package="inference", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, text) in fields.items():
            label, _, kind = text.rpartition(" ")
            entry = message.field.add(name=field, number=number)
            entry.label = kinds.LABEL_REPEATED if label else kinds.LABEL_OPTIONAL
            if kind in MESSAGES:
                entry.type, entry.type_name = kinds.TYPE_MESSAGE, f".inference.{kind}"
            else:
                entry.type = getattr(kinds, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.{name}")) for name in MESSAGES}


class Servicer:
    """The methods of the protocol."""

    def __init__(self, service: Service) -> None:
        self._service, self._messages = service, messages()

    async def ServerLive(self, request: Any) -> Any:
        """Whether this process answers."""
        return self._messages["ServerLiveResponse"](live=True)

    async def ServerReady(self, request: Any) -> Any:
        """Whether a request would be worked on."""
        return self._messages["ServerReadyResponse"](ready=self._service.is_ready)

    async def ModelReady(self, request: Any) -> Any:
        """Whether a request to a generator would be worked on."""
        self._service.model(request.name, request.version)
        return self._messages["ModelReadyResponse"](ready=self._service.is_ready)

    async def ServerMetadata(self, request: Any) -> Any:
        """What this is."""
        return self._messages["ServerMetadataResponse"](name="hpcgan", version=hpcgan.__version__)

    async def ModelMetadata(self, request: Any) -> Any:
        """Inputs and outputs of a generator."""
        about = self._service.metadata(self._service.model(request.name, request.version))
        tensors = {
            kind: [{k: entry[k] for k in ("name", "datatype", "shape")} for entry in about[kind]]
            for kind in ("inputs", "outputs")
        }
        return self._messages["ModelMetadataResponse"](**{**about, **tensors})

    async def ModelInfer(self, request: Any) -> Any:
        """Make events."""
        service, began = self._service, time.monotonic()
        model = service.model(request.model_name, request.model_version)
        status, n = 200, 0
        try:
            asked = _read(request)
            async with service.making(model, asked) as future:
                events = await asyncio.wait_for(future, service.limits.timeout_s)
            chosen = protocol.chosen(asked, events)
            n = len(next(iter(events.values())))
            return self._messages["ModelInferResponse"](
                model_name=model.name,
                model_version=service.version(model),
                id=asked.id,
                outputs=[
                    {"name": name, "datatype": protocol.datatype(array.dtype), "shape": array.shape}
                    for name, (array, _) in chosen.items()
                ],
                raw_output_contents=[b"".join(protocol.chunks(array)) for array, _ in chosen.values()],
            )
        except InputError as error:
            status = 400
            raise Refusal(status, str(error)) from None
        except (asyncio.TimeoutError, TimeoutError):
            status = 504
            raise Refusal(status, f"took longer than {service.limits.timeout_s:g} s") from None
        except asyncio.CancelledError:
            status = 499
            raise
        except Refusal as refusal:
            status = refusal.status
            raise
        finally:
            service.count(model, "grpc", status, began, n)


def _read(request: Any) -> protocol.Request:
    """What a request says, as over HTTP."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InputError(f"raw_input_contents: there are {len(raw)}, inputs are {len(request.inputs)}")
    inputs: dict[str, np.ndarray] = {}
    for number, tensor in enumerate(request.inputs):
        item: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if raw:
            item["parameters"] = {"binary_data_size": len(raw[number])}
        else:
            item["data"] = [value for _, values in tensor.contents.ListFields() for value in values]
        name, array, _ = protocol.tensor(item, raw[number] if raw else b"", 0)
        if name in inputs:
            raise InputError(f"inputs: '{name[:40]}' is given twice")
        inputs[name] = array
    outputs = {output.name: True for output in request.outputs} or None
    return protocol.Request(request.id[:200], inputs, outputs, True)


def _handler(
    method: Callable[[Any], Awaitable[Any]], expected: str | None
) -> Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]:
    """A method as gRPC calls it; `expected` is what the client has to show, if anything."""

    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            if expected is not None:
                authorization = str(dict(context.invocation_metadata() or ()).get("authorization", ""))
                if not hmac.compare_digest(authorization.encode(), expected.encode()):
                    raise Refusal(401, "show the service's token: metadata 'authorization: Bearer TOKEN'")
            return await method(request)
        except Refusal as refusal:
            code = _CODES.get(refusal.status, grpc.StatusCode.INTERNAL)
            await context.abort(code, refusal.reason)

    return call


@contextlib.asynccontextmanager
async def serving(service: Service, token: str | None, host: str, port: int) -> AsyncIterator[int]:
    """Serve during a block, at whose end requests that were accepted are finished; the port.

    Parameters
    ----------
    service : Service
    token : str or None
        What clients have to show, except for health: metadata `authorization: Bearer TOKEN`.
    host : str
    port : int
        0: any that is free.

    Raises
    ------
    InputError
        The port is taken.
    """
    servicer, classes = Servicer(service), messages()
    expected = None if token is None else f"Bearer {token}"
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            _handler(getattr(servicer, name), None if name in _PUBLIC else expected),
            request_deserializer=classes[f"{name}Request"].FromString,
            response_serializer=classes[f"{name}Response"].SerializeToString,
        )
        for name in METHODS
    }
    options = [
        ("grpc.max_receive_message_length", service.limits.body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(NAME, handlers)])
    try:
        bound = server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except RuntimeError:
        bound = 0
    if not bound:
        raise InputError(f"--grpc-port {port}: {host} cannot be listened on; give another one")
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(service.limits.timeout_s)
