"""Generators of runs as a service: the Open Inference Protocol over HTTP and gRPC, requests merged into full batches.

`protocol.py` reads and writes what goes over the wire, `asking.py` says what a request asks a generator for,
`merging.py` puts waiting requests together, `workers.py` has processes with TensorFlow (`worker.py`) make the batches,
`service.py` holds these together, and `http.py` and `rpc.py` are the ways in. On the other side are `client.py`,
`local.py` (a service of a program's own) and `load.py` (many clients).
"""
