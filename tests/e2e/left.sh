#!/bin/sh
# left.sh STATE ROOT: what is left of dead tasks on this node, "KIND PATH" a line, sorted.
#
# An inventory that shares nothing with the program that is tested: listings, /proc and awk. A bundle
# is dead if nobody listens at its shim's socket, no shim runs for it or its pod, and its first
# process is gone. All else is left behind if it bears the name of no bundle and nobody is in it.
# What containerd's own list of containers still names is told as "listed KIND PATH": it is its.
set -eu
tasks=io.containerd.runtime.v2.task
tree=$1/$tasks work=$2/$tasks address=$1/containerd.sock run=/run/containerd
scratch=$(mktemp -d)
trap 'rm -r "$scratch"' EXIT
tab=$(printf '\t')

# The shims of this mount namespace: PID, namespace and id.
mine=$(readlink /proc/self/ns/mnt)
for proc in /proc/[0-9]*; do
    [ "$(cat "$proc/comm" 2>/dev/null)" = containerd-shim ] || continue
    [ "$(readlink "$proc/ns/mnt" 2>/dev/null)" = "$mine" ] || continue
    tr '\0' '\t' <"$proc/cmdline" 2>/dev/null | awk -F '\t' -v pid="${proc#/proc/}" '
        { for (i = 2; i < NF; i++) { if ($i == "-namespace") ns = $(i + 1); if ($i == "-id") id = $(i + 1) }
          if (ns != "") print pid, ns "/" id }'
done >"$scratch/shims"
awk '$4 == "00010000" { print $8 }' /proc/net/unix >"$scratch/listening"
for namespace in $(ctr --address "$address" namespaces ls -q); do
    ctr --address "$address" --namespace "$namespace" containers ls -q | sed "s|^|$namespace/|"
    ctr --address "$address" --namespace "$namespace" tasks ls -q | sed "s|^|$namespace/|"
done >"$scratch/listed"

# alive PID [START]: it runs, and is the one that began then.
alive() {
    said=$(sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null) || return 1
    set -- "$2" $said
    [ "$2" != Z ] && [ "$2" != X ] && { [ -z "$1" ] || [ "$1" = "${21}" ]; }
}

# began STATE.JSON: when the first process of a container began, by runc's own state.
began() {
    grep -o '"init_process_start":[0-9]*' "$1" 2>/dev/null | cut -d : -f 2 || true
}

# serves NAMESPACE ID: somebody listens at the socket of a bundle, or a shim runs for it or its pod.
serves() {
    bundle=$tree/$1/$2
    for file in address bootstrap.json; do
        socket=$(grep -o "unix://[^\"]*" "$bundle/$file" 2>/dev/null | head -n 1) || true
        [ -z "$socket" ] || ! grep -qxF "${socket#unix://}" "$scratch/listening" || return 0
    done
    pod=$(cat "$bundle/sandbox" 2>/dev/null) || pod=$(
        grep -o '"io.kubernetes.cri.sandbox-id":"[^"]*"' "$bundle/config.json" 2>/dev/null | cut -d '"' -f 4
    ) || true
    for id in "$2" $pod; do
        ! grep -q " $1/$id\$" "$scratch/shims" || return 0
    done
    return 1
}

# has NAMESPACE ID: there is a bundle of that name, be it that containerd is removing it.
has() {
    [ -e "$tree/$1/$2" ] || [ -e "$tree/$1/.$2" ]
}

# each TOP: the names below a directory of namespaces, two words each, hidden ones too.
each() {
    [ ! -d "$1" ] || find "$1" -mindepth 2 -maxdepth 2 -type d -printf '%P\n' | tr / ' '
}

# tell KIND PATH NAMESPACE ID: it is left, unless containerd knows a container of that name.
tell() {
    ! grep -qxF "$3/$4" "$scratch/listed" || printf 'listed '
    printf '%s %s\n' "$1" "$2"
}

bundles() {
    each "$tree" | while read -r namespace id; do
        bundle=$tree/$namespace/$id
        case $id in
            .*) echo "hidden-bundle $bundle" && continue ;;
        esac
        serves "$namespace" "$id" && continue
        pid=$(cat "$bundle/init.pid" 2>/dev/null) || pid=
        [ -n "$pid" ] && alive "$pid" "$(began "$run/runc/$namespace/$id/state.json")" && continue
        echo "bundle $bundle"
    done
    each "$work" | while read -r namespace id; do
        has "$namespace" "$id" || tell work-dir "$work/$namespace/$id" "$namespace" "$id"
    done
}

sockets() {
    find "$run/s" -type s 2>/dev/null | while read -r socket; do
        grep -qxF "$socket" "$scratch/listening" && continue
        grep -qsF "unix://$socket" "$tree"/*/*/address "$tree"/*/*/bootstrap.json && continue
        echo "shim-socket $socket"
    done
    find "$run/fifo" -mindepth 1 -maxdepth 1 -type d 2>/dev/null | while read -r directory; do
        id=$(find "$directory" -type p -printf '%f\n' | sed 's/-std[a-z]*$//' | sort -u)
        [ -n "$(find "$tree" -mindepth 2 -maxdepth 2 -name "$id")" ] || echo "fifo-dir $directory"
    done
}

states() {
    each "$run/runc" | while read -r namespace id; do
        has "$namespace" "$id" && continue
        state=$run/runc/$namespace/$id/state.json
        pid=$(grep -o '"init_process_pid":[0-9]*' "$state" | cut -d : -f 2) || pid=
        [ -n "$pid" ] && alive "$pid" "$(began "$state")" && continue
        echo "runc-state $run/runc/$namespace/$id"
    done
}

groups() {
    awk '$0 ~ / - cgroup2? / { print $5 }' /proc/self/mountinfo | while read -r mounted; do
        for top in "$mounted"/*/; do
            namespace=$(basename "$top")
            [ -d "$tree/$namespace" ] || [ -d "$work/$namespace" ] || [ -d "$run/runc/$namespace" ] || continue
            for group in "$top"*/; do
                [ -d "$group" ] || continue
                has "$namespace" "$(basename "$group")" && continue
                [ -z "$(find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null)" ] || continue
                echo "cgroup ${group%/}"
            done
        done
    done
}

mounts() {
    awk -v tree="$tree/" 'index($5, tree) == 1 { print $5 }' /proc/self/mountinfo | while read -r point; do
        below=${point#"$tree/"}
        namespace=${below%%/*} below=${below#*/}
        [ -e "$tree/$namespace/${below%%/*}" ] || echo "mount $point"
    done
}

shims() {
    while read -r pid name; do
        [ -e "$tree/$name" ] || [ -n "$(cat "/proc/$pid/task"/*/children 2>/dev/null)" ] || echo "shim $pid"
    done <"$scratch/shims"
}

{ bundles && sockets && states && groups && mounts && shims; } | sort
