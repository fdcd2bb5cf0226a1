#!/bin/sh
# The entry point of an image: a command in the environment of hpcgan.
# shellcheck source=containers/environment.sh
. /opt/hpcgan/source/containers/environment.sh
exec "$@"
