# shellcheck shell=bash
# `make setup SITE=1`: the MPI, TensorFlow and Horovod of the site (modules, conda) are used as they are; what else hpcgan
# needs goes into an environment that sees them. Sourced by tools/setup.sh, whose functions and variables these use.
# shellcheck disable=SC2034  # as it uses those that are set here

SITE_PYTHONPATH=${PYTHONPATH:-} # of modules
SITE_FILES=$VENV/setup-site     # what tools/setup_site.py writes

find_site() { # the Python that modules or conda have put first, and what says whether they have changed
    local name outside
    outside=$(path_without "$VENV/bin")
    if [ -n "${HPCGAN_PYTHON:-}" ]; then
        PYTHON=$HPCGAN_PYTHON
    else
        for name in python3 python; do
            if PYTHON=$(PATH=$outside command -v "$name") && python_version "$PYTHON" >/dev/null; then break; fi
            PYTHON=""
        done
    fi
    PYVER=$(python_version "${PYTHON:-none}") ||
        die "SITE=1 uses the site's Python, and ${PYTHON:-python3} cannot be run; load its module, activate its conda environment, or set HPCGAN_PYTHON"
    supported "$PYVER" || die "$PYTHON is Python $PYVER; 3.10 to 3.13 is needed: load another module, or set HPCGAN_PYTHON"
    MPI_KIND=site MPI_DIR="" MPI_ID=site-$(printf '%s\n' "$(command -v "$PYTHON")" "$(PATH=$outside command -v mpirun)" \
        "${LOADEDMODULES:-}" "${CONDA_PREFIX:-}" "$SITE_PYTHONPATH" | sha256sum | cut -c 1-12)
}

look_at_site() { # DIR: ends where something is missing; CONSTRAINTS are then the site's versions
    say "looking at the site's Python, MPI, TensorFlow and Horovod"
    PATH=$(path_without "$VENV/bin") PYTHONPATH=$SITE_PYTHONPATH "$PYTHON" tools/setup_site.py "$1" || exit 1
    CONSTRAINTS=$1/constraints.txt
    [ -e "$1/build" ] || return 0
    HPCGAN_MPI=site find_mpi
    compiles "$MPICC" a.c "$MPI_PROGRAM" ||
        die "$MPICC cannot compile and link a five-line program ($WHY), and mpi4py is not there; load the MPI's module and its compiler, or a module with mpi4py 4"
    check_headers
    grep '^mpi4py==' constraints.txt >>"$CONSTRAINTS"
}

install_beside_site() { # DIR EXTRA...: the environment that sees the site's packages
    local files=$1 packages dir
    shift
    rm -rf "$SITE_FILES"
    cp -r "$files" "$SITE_FILES"
    CONSTRAINTS=$SITE_FILES/constraints.txt
    packages=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    cp "$SITE_FILES/zz_hpcgan_site.pth" "$packages/"
    step "packages $*" with_extras pip "$@"
    if [ -e "$SITE_FILES/build" ]; then
        say "compiling mpi4py against $MPI_DIR: half a minute"
        logged cython "installing Cython" pip install 'cython>=3.0.10'
        dir=$(mktemp -d)
        logged mpi4py "building mpi4py" build_mpi4py "$dir"
        logged native "installing mpi4py" pip install --no-index --no-deps --force-reinstall "$dir"/*.whl
        rm -rf "$dir"
    fi
    logged verify "looking for the site's packages" "$VENV/bin/python" -c '
import importlib.util, json, os, sys
for name in ("tensorflow", "horovod", "mpi4py"):
    path = json.load(open(sys.argv[1])).get(name, {}).get("path")
    spec = importlib.util.find_spec(name)
    origin = spec.origin if spec else None
    if path and (origin is None or os.path.realpath(origin) != os.path.realpath(path)):
        sys.exit(f"error: {name} comes from {origin}, not from the site ({path}): remove {sys.prefix} and try again")
' "$SITE_FILES/site.json"
}
