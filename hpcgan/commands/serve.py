"""`hpcgan serve`: the generators of runs as a service."""

from __future__ import annotations

import argparse
import importlib.util

from hpcgan.commands import arguments
from hpcgan.errors import EXIT_DONE, InputError
from hpcgan.system import streams
from hpcgan.system.console import note

NEEDED = ("uvicorn", "starlette", "prometheus_client")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "serve",
        description="Serve the generators of runs by the Open Inference Protocol, until a signal (Ctrl-C, SIGTERM) "
        "asks for the end. Requests that wait are merged; the same seed gives the same events, to rounding, whatever "
        "they are merged with.",
    )
    parser.add_argument("runs", nargs="+", metavar="[NAME=]RUN", help="run directory, or pretrained:NAME")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    port = arguments.whole(0, 65535)
    parser.add_argument("--port", type=port, default=8000, metavar="P", help="of HTTP; 0: a free one (default: 8000)")
    parser.add_argument("--grpc-port", type=port, metavar="P", help="serve gRPC there, too; 0: a free one")
    parser.add_argument(
        "--token-file",
        type=arguments.output_file,
        metavar="FILE",
        help="clients must show the token in it; made if missing",
    )
    parser.add_argument(
        "--address-file", type=arguments.output_file, metavar="FILE", help="write where it listens, once it is ready"
    )
    parser.add_argument(
        "--workers", type=arguments.whole(1, 256), default=1, metavar="W", help="processes (default: 1)"
    )
    parser.add_argument("--checkpoint", choices=("best", "latest"), default="best", help="default: best")
    parser.add_argument(
        "--batch-size", type=arguments.count, metavar="B", help="events made at a time (default: that of the training)"
    )
    parser.add_argument(
        "--latency", type=arguments.real(0.0, 10.0), default=0.005, metavar="S",
        help="how long a request waits for others to be merged with, s (default: 0.005)",
    )  # fmt: skip
    parser.add_argument(
        "--max-events", type=arguments.whole(1, 10**6), default=4096, metavar="N", help="of a request (default: 4096)"
    )
    parser.add_argument(
        "--max-held", type=arguments.whole(1, 10**8), default=16384, metavar="N",
        help="events that wait, are made or sent; more are refused (default: 16384)",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=arguments.real(0.0, 86400.0, above=True), default=60.0, metavar="S",
        help="of a request, its response included, s (default: 60)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Serve."""
    if args.max_held < args.max_events:
        raise InputError(f"--max-held {args.max_held}: is below --max-events {args.max_events}")
    missing = [name for name in (*NEEDED, *(["grpc"] * (args.grpc_port is not None))) if not _is_there(name)]
    if missing:
        raise InputError(f"{', '.join(missing)} is not installed: pip install 'hpcgan[serve]'")
    streams.go_on("the service goes on")
    from hpcgan.serve.limits import Limits
    from hpcgan.serve.running import Where, run
    from hpcgan.serve.service import Service, open_models

    models = open_models(args.runs, args.checkpoint, args.batch_size)
    for model in models:
        if model.note is not None:
            note(f"note: {model.note}")
    limits = Limits(args.max_events, args.max_held, timeout_s=args.timeout, latency_s=args.latency)
    where = Where(args.host, args.port, args.grpc_port, args.token_file, args.address_file)
    run(Service(models, limits, args.workers, note), where, lambda line: print(line, flush=True))
    return EXIT_DONE


def _is_there(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
