# shellcheck shell=bash
# Packages of Debian that tests need and this machine lacks, by apt, as root. Sourced by the scripts of those tests.

install_missing() { # WHAT PACKAGE...: where they cannot be installed, the tests are skipped; in CI this fails
    local what=$1 package missing=()
    shift
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "no tests of $what here: install ${missing[*]} (as root, on Debian or Ubuntu)" >&2
        [ -z "${CI:-}" ] || exit 1
        return 0
    fi
    echo "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; }; then
        echo "no tests of $what here: apt-get could not install ${missing[*]}" >&2
        [ -z "${CI:-}" ] || exit 1
    fi
}
