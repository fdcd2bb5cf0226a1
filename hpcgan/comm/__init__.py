"""Communication between ranks; see `hpcgan.comm.base`."""
