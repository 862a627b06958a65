#!/usr/bin/env bash
# Makes what deploy/compose.yaml needs to know and nobody else may: passwords, keys, and a certificate by an
# authority of its own.
#
#   deploy/secrets.sh [--relay-host HOST] [--broker-host HOST]
#
# Writes deploy/secrets/ and deploy/.env. What is there already is kept, so it can be run again, and so a certificate
# of your own (tls.crt, tls.key; and ca.pem, what clients trust to verify it) is left alone. Passwords reach the
# containers as files. The folder is for you alone; the files in it are readable by the users that run in the
# containers, who see only those that they are given.
#
# Exit code: 0 done, 64 wrong use, 69 openssl is missing.
set -euo pipefail
cd "$(dirname "$0")"

relay_host=relay.culvert.example broker_host=broker.culvert.example
while [ $# -gt 0 ]; do
    case "$1" in
        --relay-host) relay_host=${2:?"--relay-host needs a name"}; shift 2 ;;
        --broker-host) broker_host=${2:?"--broker-host needs a name"}; shift 2 ;;
        -h | --help) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) echo "secrets.sh: unknown argument '$1'; see deploy/secrets.sh --help" >&2; exit 64 ;;
    esac
done
command -v openssl >/dev/null || { echo "secrets.sh: openssl is missing; install it" >&2; exit 69; }

umask 077
mkdir -p secrets
cd secrets
# Writes standard input to a file that is not there yet, whole or not at all.
keep() {
    if [ -s "$1" ]; then
        # Whoever writes here would end by a broken pipe.
        cat >/dev/null
    else
        cat >"$1.new"
        chmod 644 "$1.new"
        mv "$1.new" "$1"
    fi
}
password() { openssl rand -hex 24; }

password | keep redis-password
password | keep postgres-password
password | keep institution-password
password | keep grafana-password
openssl rand -base64 32 | keep data-keys
echo "postgres://culvert:$(cat postgres-password)@postgres/culvert" | keep database-url

# Two users of Redis, with the same password and no more rights than each needs (docs/operations.md, "Redis").
sha=$(tr -d '\n' <redis-password | openssl dgst -sha256 -r | cut -d ' ' -f 1)
keep redis-users.acl <<ACL
user default off
user relay on #$sha ~culvert:* ~{culvert}:* resetchannels &culvert:in:* -@all +config|get +del +discard +eval +evalsha +exists +get +hdel +hget +hgetall +hkeys +hlen +hrandfield +hset +info +multi +pexpire +ping +publish +sadd +script|load +set +srem +sscan +subscribe +time +unwatch
user broker on #$sha ~culvert:b:* ~{culvert}:* resetchannels &culvert:b:events -@all +del +evalsha +exists +get +getdel +hdel +hget +hgetall +hset +hvals +info +pexpire +ping +publish +script|load +set +subscribe +time +unwatch +zadd +zrangebyscore +zrem +zscore
ACL

# Signs tickets for `culvert ticket issue`; the relays get the public half. Only you may read the private one.
[ -s tickets.key ] || openssl genpkey -algorithm ed25519 -out tickets.key
openssl pkey -in tickets.key -pubout | keep tickets.pub

if [ ! -s tls.crt ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj '/CN=Culvert evaluation' \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
        -keyout ca.key -out ca.pem.new 2>/dev/null
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$relay_host" \
        -keyout tls.key.new -out tls.csr 2>/dev/null
    openssl x509 -req -in tls.csr -CA ca.pem.new -CAkey ca.key -set_serial "0x$(openssl rand -hex 16)" -days 365 \
        -extfile <(printf 'subjectAltName=DNS:%s,DNS:%s\nextendedKeyUsage=serverAuth\n' "$relay_host" "$broker_host") \
        -out tls.crt.new 2>/dev/null
    chmod 644 ca.pem.new tls.key.new tls.crt.new
    mv ca.pem.new ca.pem
    mv tls.key.new tls.key
    mv tls.crt.new tls.crt
    # Nothing else is ever signed by it.
    rm -f ca.key tls.csr
fi

cd ..
keep .env <<ENV
RELAY_HOST=$relay_host
BROKER_HOST=$broker_host
ENV
echo "deploy/secrets is complete. The relay is wss://$relay_host, the broker https://$broker_host; both names have to"
echo "lead to this machine. Clients trust deploy/secrets/ca.pem (culvert: CULVERT_CA_FILE)."
