#!/bin/sh
# The entry point of an image: a command in the environment of hpcgan.
. /opt/hpcgan/source/containers/environment.sh
exec "$@"
