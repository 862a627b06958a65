#!/usr/bin/env bash
# Builds the images without pulling any, and runs the compose stack in a container engine of its own.
#
#   deploy/check-image.sh [--programs FOLDER] [--images-only]
#
# Starts dockerd with everything it keeps in a temporary folder, beside one that may run already, and stops it at the
# end. The programs are built by deploy/build-static.sh, or taken from FOLDER, where that put them before. haproxy,
# Redis, Postgres and Prometheus come from Debian's packages. Then:
#
#   1. the images: sizes, the user, nothing in them but the program; run as nobody on a read-only root without
#      capabilities;
#   2. the services of deploy/compose.yaml, without Grafana, until the balancer uses and Prometheus sees all of them;
#   3. `culvert doctor --transfer` through the port of the outside, send and receive, share and fetch through the
#      balancer, with a relay stopped during a transfer;
#   4. a rollout of all relays under load, in which no message may be missing.
#
# Needs root, Debian, and about 3 GB in TMPDIR. Takes a quarter of an hour, half of it for the build, and gives up
# after 40 minutes. Exit code: 0 all is well, 1 a check failed, 64 wrong use, 69 something needed is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

LIMIT=2400
RELAY_MOST_BYTES=20000000
programs='' images_only=0
while [ $# -gt 0 ]; do
    case "$1" in
        --programs) programs=$(realpath "${2:?"--programs needs a folder"}"); shift 2 ;;
        --images-only) images_only=1; shift ;;
        -h | --help) sed -n '2,20s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) echo "check-image.sh: unknown argument '$1'; see deploy/check-image.sh --help" >&2; exit 64 ;;
    esac
done

say() { printf '\n== %s (after %s s)\n' "$*" "$SECONDS"; }
missing() { echo "check-image.sh: $*" >&2; exit 69; }
fail() { echo "check-image.sh: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || missing "only root can start a container engine"
command -v apt-get >/dev/null || missing "this needs Debian, for the packages of haproxy, Redis, Postgres and Prometheus"
# The engine's own programs, before others of the same names.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH
work=$(mktemp -d "${TMPDIR:-/tmp}/culvert-image-XXXXXX")
engine='' stack=0 watchdog='' self=$$ bridge=cvchk$(($$ % 10000))

# What an engine changes in the machine's network, and does not take back when it ends.
firewalls=(iptables ip6tables)
remember_network() {
    cat /proc/sys/net/ipv4/ip_forward >"$work/ip_forward"
    for firewall in "${firewalls[@]}"; do
        if ! "$firewall-save" 2>/dev/null >"$work/$firewall"; then rm -f "$work/$firewall"; fi
    done
}
restore_network() {
    for firewall in "${firewalls[@]}"; do
        [ -e "$work/$firewall" ] || continue
        # The rules and chains of our bridge, and those of the engine unless another one was there before: it has them
        # too, and needs them.
        "$firewall-save" 2>/dev/null | awk -v bridge="$bridge" -v before="$work/$firewall" '
            BEGIN { while ((getline line <before) > 0) { if (line ~ /^:/) sub(/ \[.*/, "", line); there[line] = 1; if (line ~ /^:DOCKER/) other = 1 } }
            /^:/ { sub(/ \[.*/, "") }
            /^\*/ { print; unused = "" }
            /^:FORWARD DROP$/ && !($0 in there) && !other { print ":FORWARD ACCEPT" }
            /^:DOCKER/ && !other { unused = unused "-X " substr($1, 2) "\n" }
            /^-A/ && !($0 in there) && (index($0, bridge) || /172\.29\.255\.0\/24/ || (!other && /DOCKER/)) { sub(/^-A/, "-D"); print }
            /^COMMIT/ { printf "%s", unused; print }' | "$firewall-restore" --noflush || echo "check-image.sh: $firewall may hold rules of the engine still" >&2
    done
    [ "$(cat "$work/ip_forward")" = 1 ] || echo 0 >/proc/sys/net/ipv4/ip_forward
}

compose() { (cd "$work/deploy" && docker-compose --project-name culvertcheck -f compose.yaml "$@"); }
stop() {
    status=$?
    # Cleaning up is not interrupted.
    trap - EXIT
    trap "" INT TERM
    [ -z "$watchdog" ] || kill "$watchdog" 2>/dev/null || true
    if [ "$status" != 0 ] && [ "$stack" = 1 ]; then
        compose logs --no-color --tail 25 >&2 || true
    fi
    [ "$stack" = 0 ] || compose down --volumes --timeout 1 >/dev/null 2>&1 || true
    if [ -n "$engine" ]; then
        kill "$engine" 2>/dev/null || true
        wait "$engine" 2>/dev/null || true
        restore_network
    fi
    ip link del "$bridge" 2>/dev/null || true
    if [ "$status" != 0 ] && [ "$stack" = 0 ] && [ -s "$work/dockerd.log" ]; then
        tail -n 20 "$work/dockerd.log" >&2
    fi
    # What the engine left mounted, innermost first.
    awk -v under="$work/" 'index($2, under) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r -n 1 umount -l 2>/dev/null || true
    rm -rf "$work"
    exit "$status"
}
trap stop EXIT
trap 'exit 1' INT TERM
# Whatever hangs, it ends.
(
    # Its sleep ends with it: whoever reads the output would wait for it.
    trap 'kill "$!"; exit' TERM
    sleep "$LIMIT" &
    wait "$!"
    echo "check-image.sh: not done after $LIMIT s" >&2
    kill -TERM "$self"
) &
watchdog=$!

packages=()
for needed in /usr/sbin/dockerd:docker.io /usr/bin/docker-compose:docker-compose /usr/sbin/debootstrap:debootstrap \
    /usr/sbin/iptables:iptables /usr/sbin/ip:iproute2 /usr/bin/curl:curl /usr/bin/openssl:openssl; do
    [ -x "${needed%%:*}" ] || packages+=("${needed##*:}")
done
if [ ${#packages[@]} != 0 ]; then
    say "Installing ${packages[*]}"
    apt-get update -qq
    # Without starting the services that they bring.
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null \
        || missing "apt-get cannot install ${packages[*]}"
fi

say "Starting a container engine"
files=$(ulimit -Hn)
[ "$files" != unlimited ] && [ "$files" -lt 1048576 ] || files=1048576
cat >"$work/daemon.json" <<JSON
{"default-ulimits": {"nofile": {"Name": "nofile", "Hard": $files, "Soft": $files}},
 "default-address-pools": [{"base": "172.29.0.0/17", "size": 24}]}
JSON
export DOCKER_HOST=unix://$work/docker.sock DOCKER_BUILDKIT=1 DOCKER_CONFIG=$work/client COMPOSE_HTTP_TIMEOUT=300
# A bridge of its own, so that one that another engine has is not touched.
ip link add name "$bridge" type bridge || missing "no network bridge can be made here"
ip addr add 172.29.255.1/24 dev "$bridge"
ip link set "$bridge" up
remember_network
dockerd --config-file "$work/daemon.json" --data-root "$work/docker" --exec-root "$work/run" --pidfile "$work/docker.pid" \
    -H "$DOCKER_HOST" --bridge "$bridge" >"$work/dockerd.log" 2>&1 &
engine=$!
for _ in $(seq 120); do
    docker info >/dev/null 2>&1 && break
    kill -0 "$engine" 2>/dev/null || { tail -n 5 "$work/dockerd.log" >&2; missing "dockerd does not run here; its last words are above"; }
    sleep 0.5
done
docker info >/dev/null 2>&1 || missing "dockerd does not answer after 60 s"
docker info --format 'Engine {{.ServerVersion}}, storage {{.Driver}}, cgroups {{.CgroupVersion}}, {{.KernelVersion}}'

mkdir -p "$work/stage/out"
if [ -z "$programs" ]; then
    say "Building the programs"
    deploy/build-static.sh "$work/stage/out"
else
    cp "$programs"/* "$work/stage/out/"
fi
tar -C "$work/stage" -c out | docker import - culvert-programs:check >/dev/null

version=$(sed -n 's/^ARG VERSION=//p' deploy/Dockerfile)
say "Building the images"
for target in relay broker-api cli loadtest; do
    docker build -q -f deploy/Dockerfile --target "$target" --build-arg PROGRAMS=culvert-programs:check \
        -t "culvert/$target:$version" . >/dev/null || fail "the image $target does not build"
done

say "Checking the images"
hardened=(--read-only --cap-drop ALL --security-opt no-new-privileges)
for target in relay broker-api cli loadtest; do
    image=culvert/$target:$version
    bytes=$(docker image inspect --format '{{.Size}}' "$image")
    user=$(docker image inspect --format '{{.Config.User}}' "$image")
    [ "$user" = 65532:65532 ] || fail "$image runs as '$user'"
    # Not even files that somebody could run by another name.
    container=$(docker create "$image" x)
    docker export "$container" | tar -t | grep -v '/$' | grep -Ev '^(dev|etc|proc|sys)/|^\.dockerenv$' >"$work/files"
    docker rm "$container" >/dev/null
    [ "$(wc -l <"$work/files")" = 1 ] || fail "$image holds more than its program: $(xargs <"$work/files")"
    if docker run --rm --network none --entrypoint /bin/sh "$image" -c true 2>/dev/null; then fail "$image has a shell"; fi
    docker run --rm --network none "${hardened[@]}" "$image" --version || fail "$image does not run confined"
    printf '%-12s %5.1f MB\n' "$target" "$(awk -v b="$bytes" 'BEGIN { print b / 1000000 }')"
    [ "$target" != relay ] || [ "$bytes" -lt "$RELAY_MOST_BYTES" ] || fail "the relay's image has $bytes bytes, more than $RELAY_MOST_BYTES"
done
container=$(docker run -d "${hardened[@]}" "culvert/relay:$version" --plain-text --open --listen 127.0.0.1:8443)
pid=$(docker inspect --format '{{.State.Pid}}' "$container")
read_status() { awk -v what="$1:" '$1 == what { print $2 }' "/proc/$pid/status"; }
[ "$(read_status Uid)" = 65532 ] || fail "the relay runs as $(read_status Uid)"
for set in CapInh CapPrm CapEff CapBnd CapAmb; do
    [ "$(read_status "$set")" = 0000000000000000 ] || fail "the relay has capabilities: $set $(read_status "$set")"
done
[ "$(read_status NoNewPrivs)" = 1 ] || fail "the relay could gain rights"
grep -q ' / .* ro[, ]' "/proc/$pid/mountinfo" || fail "the relay's root can be written"
docker kill --signal TERM "$container" >/dev/null
[ "$(timeout 60 docker wait "$container")" = 0 ] || fail "the relay does not drain"
docker rm "$container" >/dev/null
echo "The relay runs as 65532 on a read-only root, without any capability, and drains on SIGTERM."
[ "$images_only" = 0 ] || { say "All is well"; exit 0; }

say "Making images of haproxy, Redis, Postgres and Prometheus from Debian's packages"
debian=$work/debian
debootstrap --variant=minbase --include=haproxy,redis-server,postgresql,prometheus bookworm "$debian" >"$work/debootstrap.log" 2>&1 \
    || { tail -n 5 "$work/debootstrap.log" >&2; missing "debootstrap cannot install Debian; its last words are above"; }
bin=$(cd "$debian" && compgen -G 'usr/lib/postgresql/*/bin')
mkdir -p "$debian/data" "$debian/var/lib/postgresql/data" "$debian/prometheus"
chown 999:999 "$debian/var/lib/postgresql/data"
chown 65534:65534 "$debian/prometheus"
# What the official image does with the same settings.
cat >"$debian/usr/local/bin/postgres-entrypoint" <<'SH'
#!/bin/sh
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb -D "$PGDATA" -U "$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" --auth-local=trust --auth-host=scram-sha-256 -E UTF8 --no-locale
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    pg_ctl -D "$PGDATA" -o "-c listen_addresses= -c unix_socket_directories=/run/postgresql" -w start
    createdb -h /run/postgresql -U "$POSTGRES_USER" "$POSTGRES_DB" || [ "$POSTGRES_DB" = "$POSTGRES_USER" ]
    pg_ctl -D "$PGDATA" -m fast -w stop
fi
exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/run/postgresql
SH
chmod 755 "$debian/usr/local/bin/postgres-entrypoint"
# Its user has another number in the official image.
sed -i 's/^postgres:x:[0-9]*:[0-9]*:/postgres:x:999:999:/' "$debian/etc/passwd"
tar -C "$debian" --exclude './var/cache/*' --exclude './var/lib/postgresql/1*' -c . \
    | docker import --change "ENV PATH=/$bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
        --change 'CMD ["postgres-entrypoint"]' - culvert-debian:check >/dev/null
rm -rf "$debian"
# The official image of Prometheus is its program, and is given the rest.
printf 'FROM culvert-debian:check\nENTRYPOINT ["/usr/bin/prometheus"]\n' | docker build -q -t culvert-prometheus:check - >/dev/null

say "Starting the stack"
cp -r deploy "$work/deploy"
rm -rf "$work/deploy/secrets" "$work/deploy/.env"
"$work/deploy/secrets.sh" >/dev/null
# shellcheck disable=SC1091
. "$work/deploy/.env"
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'; }
CULVERT_PORT=$(free_port) PROMETHEUS_PORT=$(free_port)
export CULVERT_PORT PROMETHEUS_PORT CULVERT_VERSION=$version PROMETHEUS_IMAGE=culvert-prometheus:check
export HAPROXY_IMAGE=culvert-debian:check REDIS_IMAGE=culvert-debian:check POSTGRES_IMAGE=culvert-debian:check
stack=1
compose up -d --no-build haproxy relay1 relay2 relay3 broker1 broker2 redis postgres prometheus
all_up() { [ "$(curl -s --max-time 5 http://172.28.0.10:8404/metrics | grep -c '^haproxy_server_status{.*state="UP"} 1$')" = 5 ]; }
wait_for() {
    for _ in $(seq 240); do
        if "$2"; then return 0; fi
        sleep 0.5
    done
    fail "$1: not after 120 s"
}
wait_for "the balancer uses all servers" all_up
prometheus() { curl -s --max-time 5 "http://127.0.0.1:$PROMETHEUS_PORT/api/v1/$1"; }
all_scraped() { [ "$(prometheus 'query?query=up==1' | grep -o '"__name__":"up"' | wc -l)" = 5 ]; }
wait_for "Prometheus sees all relays and brokers" all_scraped
prometheus rules | grep -q '"name":"CulvertRelayDown"' || fail "Prometheus does not have the rules"
compose ps

# A command of somebody with a home of their own, on the network of the balancer. Sending needs a /tmp.
network=(--network culvertcheck_front)
culvert() {
    local who=$1
    shift
    docker run --rm -i "${hardened[@]}" --tmpfs /tmp "${network[@]}" -v "$work/home-$who:/home" -w /home \
        -e XDG_CONFIG_HOME=/home/config -e XDG_DATA_HOME=/home/data -e CULVERT_CA_FILE=/secrets/ca.pem \
        -v "$work/deploy/secrets:/secrets:ro" --name "culvert-$who-$1" "culvert/cli:$version" "$@"
}
# The folder with the secrets is for root alone, and this is root's check.
chmod 755 "$work" "$work/deploy/secrets"
chown 65532:65532 "$work/deploy/secrets/tickets.key"
for who in anna ben; do
    install -d -o 65532 -g 65532 "$work/home-$who" "$work/home-$who/shared"
done
relay=wss://$RELAY_HOST broker=https://$BROKER_HOST
peer=$(culvert anna id)
culvert anna ticket issue --key /secrets/tickets.key --peer "$peer" --invites 1 >"$work/home-anna/ticket"

say "A transfer by the doctor, through the port of the outside"
network=(--network host --add-host "$RELAY_HOST:127.0.0.1")
culvert anna doctor "$relay:$CULVERT_PORT" --ticket ticket --transfer
network=(--network culvertcheck_front)

link_of() {
    local link=''
    for _ in $(seq 120); do
        link=$(grep -m 1 '^culvert:' "$1" || true)
        [ -z "$link" ] || break
        sleep 0.5
    done
    [ -n "$link" ] || fail "no link: $(cat "$1" "$1.err" 2>/dev/null)"
    echo "$link"
}
say "A file, and a relay that stops in the middle"
# It grows until the relay is gone, however fast this machine is.
feed() {
    while [ -d "$work" ] && [ ! -e "$work/relay-is-gone" ]; do
        head -c 2000000 /dev/urandom || return
        sleep 0.1
    done
    head -c 50000000 /dev/urandom
}
feed | tee "$work/home-anna/file" | culvert anna send --relay "$relay" --ticket ticket --name file - >"$work/sent" 2>"$work/sent.err" &
sender=$!
link=$(link_of "$work/sent")
culvert ben receive --out in --json "$link" >"$work/received" 2>"$work/received.err" &
receiver=$!
started_moving() { grep -q '"event":"progress"' "$work/received"; }
wait_for "the transfer begins" started_moving
busiest=$(for n in 1 2 3; do
    address=$(docker inspect --format '{{(index .NetworkSettings.Networks "culvertcheck_front").IPAddress}}' "culvertcheck_relay${n}_1")
    echo "$(curl -s --max-time 5 "http://$address:9443/metrics" | awk '/^culvert_relay_connections[ {]/ { n += $2 } END { print n + 0 }') relay$n"
done | sort -rn | head -n 1)
echo "stopping ${busiest#* }, which has ${busiest% *} connections"
compose stop "${busiest#* }"
kill -0 "$receiver" 2>/dev/null || fail "the transfer ended before the relay did: $(tail -n 5 "$work/received.err" "$work/sent.err")"
touch "$work/relay-is-gone"
wait "$receiver" || fail "the receiver failed: $(tail -n 5 "$work/received.err")"
wait "$sender" || fail "the sender failed: $(tail -n 5 "$work/sent.err")"
cmp "$work/home-anna/file" "$work/home-ben/in/file" || fail "another file arrived"
echo "$(stat -c %s "$work/home-ben/in/file") bytes arrived as they were sent"
! grep -q 'Waiting for it to come back' "$work/received" || fail "the transfer broke off"
compose up -d --no-build "${busiest#* }"
wait_for "the balancer uses all servers again" all_up

say "A share"
for who in anna ben; do
    culvert "$who" login --broker "$broker" --user "$who" --by institution --password-file /secrets/institution-password
done
head -c 5000000 /dev/urandom >"$work/home-anna/shared/results"
culvert anna serve shared >"$work/served" 2>&1 &
server=$!
serving() { grep -q '^Serving ' "$work/served"; }
wait_for "anna serves" serving
culvert anna share --to users:ben shared/results >"$work/shared"
culvert ben fetch --out fetched "$(link_of "$work/shared")"
cmp "$work/home-anna/shared/results" "$work/home-ben/fetched/results" || fail "another file was fetched"
docker kill --signal INT culvert-anna-serve >/dev/null
wait "$server" || true

say "A rollout under load"
docker run --rm "${hardened[@]}" --network culvertcheck_front -v "$work/deploy/secrets:/secrets:ro" --tmpfs /tmp \
    "culvert/loadtest:$version" steady --mode sessions --url "$relay" --ticket-key /secrets/tickets.key --ca /secrets/ca.pem \
    --pairs 20 --rate 50 --duration 150s --no-html >"$work/load" 2>"$work/load.err" &
load=$!
sleep 5
for n in 1 2 3; do
    kill -0 "$load" 2>/dev/null || fail "the load ended early: $(tail -n 10 "$work/load.err")"
    compose stop "relay$n"
    compose up -d --no-build "relay$n"
    wait_for "the balancer uses all servers again" all_up
done
kill -0 "$load" 2>/dev/null || fail "the load ended before the rollout did: $(tail -n 10 "$work/load.err")"
wait "$load" || fail "messages are missing, or the load failed: $(tail -n 30 "$work/load" "$work/load.err")"
cat "$work/load"

say "All is well"
