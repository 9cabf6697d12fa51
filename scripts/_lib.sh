# What the scripts share. Sourced, never run; the caller stands in the root of the checkout.
# shellcheck shell=bash

SHELFWIRE_ROOT=$PWD
SHELFWIRE_VENV=${SHELFWIRE_VENV:-.venv}
case $SHELFWIRE_VENV in
/*) ;;
*) SHELFWIRE_VENV=$SHELFWIRE_ROOT/$SHELFWIRE_VENV ;;
esac
SHELFWIRE_STATE=$SHELFWIRE_ROOT/.shelfwire # what setup fetches besides Python packages; never in git
SHELFWIRE_LOG=$SHELFWIRE_STATE/setup.log

say() { printf '%s\n' "$*" >&2; }

die() { # MESSAGE [CURE]
    say "error: $1"
    if [ -n "${2-}" ]; then say "  cure: $2"; fi
    exit 1
}

quietly() { # COMMAND...: keep its output for the log; show the end of it, without addresses, when it fails
    mkdir -p "$SHELFWIRE_STATE"
    printf '$ %s\n' "$*" >>"$SHELFWIRE_LOG"
    local from
    from=$(wc -l <"$SHELFWIRE_LOG")
    "$@" >>"$SHELFWIRE_LOG" 2>&1 </dev/null && return 0
    local rc=$?
    say "failed (exit code $rc): ${*:1:4} ..., which said:"
    tail -n "+$((from + 1))" "$SHELFWIRE_LOG" | tail -n 15 | without_addresses | sed 's/^/    /' >&2
    return "$rc"
}

without_addresses() { # which mirrors a machine uses is nobody's business in a public log
    sed -E "s#[a-z+]+://[^[:space:]\"']*#(address)#g; s#host='[^']*'#host=(address)#g; s#resolve '[^']*'#resolve (address)#g
        s#([[:alnum:]-]+\\.)+(org|com|net|io|dev)\\b#(address)#g"
}

use_fetched_programs() { # programs that setup unpacked in the checkout come after the system's own
    if [ -d "$SHELFWIRE_STATE/bin" ]; then PATH=$PATH:$SHELFWIRE_STATE/bin; fi
    local broker
    if broker=$(find_broker); then export SHELFWIRE_MOSQUITTO=$broker; fi
}

find_broker() { # print where mosquitto is; Debian keeps it outside a plain user's PATH
    local place
    for place in "${SHELFWIRE_MOSQUITTO-}" "$(command -v mosquitto || true)" \
        /usr/sbin/mosquitto /usr/local/sbin/mosquitto "$SHELFWIRE_STATE/bin/mosquitto"; do
        if [ -n "$place" ] && [ -x "$place" ]; then
            printf '%s\n' "$place"
            return 0
        fi
    done
    return 1
}
