#!/bin/sh
# Activates the virtual environment, enters the workspace, and becomes the given command or, without
# one, a shell. `exec` leaves no shell in between, so signals and the exit status are the command's.

: "${WORKSPACE:=/workspace}" "${VIRTUAL_ENV:=/venv}"

if [ -r "$VIRTUAL_ENV/bin/activate" ]; then
    . "$VIRTUAL_ENV/bin/activate"
else
    PATH="$VIRTUAL_ENV/bin:$PATH"
    unset PYTHONHOME
fi
export PATH VIRTUAL_ENV WORKSPACE

cd "$WORKSPACE" || exit 1

if [ $# -gt 0 ]; then
    exec "$@"
elif command -v bash >/dev/null 2>&1; then
    exec bash
else
    exec sh
fi
