#!/bin/sh
# Starts a broker from a mounted file, from ZKBROKER_… variables, or from both (the variables win).
#   a file at /etc/zkbroker/broker.yaml (or where ZKBROKER_CONFIG says)
#   ZKBROKER_BROKER_ID=1 is broker.id, ZKBROKER_ZOOKEEPER_CONNECT is zookeeper.connect, and so on
# A first argument that is no flag is run instead:  docker run … zkbroker zkbroker-topics --help
set -eu

case "${1:-}" in
'' | -*) ;;
*) exec "$@" ;;
esac

config="${ZKBROKER_CONFIG:-/etc/zkbroker/broker.yaml}"
unset ZKBROKER_CONFIG
if [ ! -e "$config" ]; then
    if [ -z "${ZKBROKER_BROKER_ID:-}" ] || [ -z "${ZKBROKER_ZOOKEEPER_CONNECT:-}" ]; then
        echo "entrypoint: no $config, and ZKBROKER_BROKER_ID and ZKBROKER_ZOOKEEPER_CONNECT are not both set" >&2
        exit 1
    fi
    # The variables say all; the broker wants a file to name in its messages.
    config="${TMPDIR:-/tmp}/broker.yaml"
    {
        echo "broker.id: ${ZKBROKER_BROKER_ID}"
        echo "zookeeper.connect: ${ZKBROKER_ZOOKEEPER_CONNECT}"
    } >"$config"
fi
# exec: SIGTERM must reach the broker itself.
exec zkbroker-server-start "$config" "$@"
