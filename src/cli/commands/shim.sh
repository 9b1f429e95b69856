#!/bin/sh
@MARK@
# Pulls, builds of images, and pushes to registries are done by sif-convert; all else by the next singularity or apptainer in PATH.
ours=@OURS@
mark='@MARK@'

is_shim() {
    { read -r _ && read -r second; } <"$1" 2>/dev/null && [ "$second" = "$mark" ]
}

real() {
    set -f
    for name in "${0##*/}" singularity apptainer; do
        IFS=:
        for directory in $PATH; do
            program=${directory:-.}/$name
            if [ -f "$program" ] && [ -x "$program" ] && ! is_shim "$program"; then
                unset IFS
                exec "$program" "$@"
            fi
        done
    done
    echo "${0##*/}: there is no other singularity or apptainer in PATH" >&2
    exit 127
}

# Options before the command that say how much is said.
skip=0 quiet=
for word; do
    case $word in
        -q | --quiet | -s | --silent) quiet=--quiet ;;
        -d | --debug | -v | --verbose | --nocolor) ;;
        *) break ;;
    esac
    skip=$((skip + 1))
done
command=${word:-}
known= foreign= at=0
for source; do
    at=$((at + 1))
    [ "$at" -gt $((skip + 1)) ] || continue
    # Options may come after the source. The address of a web site may be the value of one.
    case $source in
        docker://* | docker-daemon:* | docker-archive:* | oci:* | oci-archive:* | oras://*) known=$source ;;
        library://* | shub://* | instance://*) foreign=yes ;;
    esac
    # Short options of builds that make something else: --sandbox, --update, --encrypt, --remote. Several may be in one word.
    case $command:$source in
        build:-*[!A-Za-z]*) ;;
        build:-*[suer]*) real "$@" ;;
    esac
    # What makes something else than a SIF of an image.
    case $source in
        --sandbox | --encrypt | --passphrase | --pem-path* | --remote | --oci | --update | --section* | --build-arg* | \
            --mksquashfs-args* | --docker-login | --help | -h) real "$@" ;;
    esac
done
[ -z "$foreign" ] || real "$@"
case ${source:-} in
    docker://* | docker-daemon:* | docker-archive:* | oci:* | oci-archive:* | oras://* | http://* | https://*) ;;
    *) source=${known:-${source:-}} ;;
esac
case $command:${source:-} in
    pull:docker://* | pull:docker-daemon:* | pull:docker-archive:* | pull:oci:* | pull:oci-archive:* | pull:oras://* | \
        pull:http://* | pull:https://*)
        shift $((skip + 1))
        exec "$ours" pull@OPTION@ $quiet "$@" ;;
    build:docker://* | build:docker-daemon:* | build:docker-archive:* | build:oci:* | build:oci-archive:*)
        shift $((skip + 1))
        exec "$ours" build@OPTION@ --if-exists update $quiet "$@" ;;
    push:oras://*)
        shift $((skip + 1))
        exec "$ours" push $quiet "$@" ;;
    *) real "$@" ;;
esac
