#!/usr/bin/env bash
# Starts and ends one process of the cluster; tests break it with this.
#   part.sh WORK_FOLDER define NAME COMMAND...    what it is; does not start it
#   part.sh WORK_FOLDER start  NAME               nothing if it runs; goes on if it was stopped
#   part.sh WORK_FOLDER stop   NAME [SIGNAL]      TERM when left out; gone when this returns
#   part.sh WORK_FOLDER alive  NAME               by exit code
# Only a process that was started here is ever signalled: its id counts together with the
# moment at which it began.
set -euo pipefail

work=$1 verb=$2 name=$3
part="$work/parts/$name"

# Field 22 of stat; the name before it may hold blanks.
began() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }

alive() {
    [ -f "$part/pid" ] || return 1
    local pid since
    read -r pid since <"$part/pid"
    [ -n "$since" ] && [ "$(began "$pid")" = "$since" ] && ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null
}

start() {
    local pid _
    if alive; then
        read -r pid _ <"$part/pid"
        kill -CONT "$pid"
        return
    fi
    setsid bash "$part/command" >>"$part/log" 2>&1 </dev/null &
    pid=$!
    echo "$pid $(began "$pid")" >"$part/pid"
}

stop() {
    alive || return 0
    local pid _
    read -r pid _ <"$part/pid"
    kill "-$1" "$pid"
    for _ in $(seq 100); do
        alive || return 0
        sleep 0.1
    done
    kill -KILL "$pid"
    while alive; do sleep 0.1; done
}

case $verb in
define)
    mkdir -p "$part"
    shift 3
    printf 'exec %s\n' "$(printf '%q ' "$@")" >"$part/command"
    ;;
start) start ;;
stop) stop "${4:-TERM}" ;;
alive) alive ;;
*) echo "what is $verb?" >&2; exit 2 ;;
esac
