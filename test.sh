#!/usr/bin/env bash
# Builds Culvert once, in release, and runs every test against that build.
#
#   ./test.sh           all tests
#   ./test.sh --full    the large ones in full size as well: 1 GiB through killed and restarted relays, 5,000
#                       idle peers, 1,000 sessions over a rollout, 100,000 topics swept, 20 rounds of faults,
#                       1,000 look-ups a second by k6 (needs Go, or CULVERT_K6);
#                       wants the machine for itself. CULVERT_TEST_SEED repeats the rounds
#
# Needs Rust and a C compiler. Debian packages that the tests run (squid, postgresql, ...) are installed
# when they are missing, mitmproxy and schemathesis into the target folder, helm and kubeconform too where Go is;
# without Go the tests of the chart are skipped, nothing else is, so what cannot be installed is a failure.
# Where the building time goes: target/cargo-timings/cargo-timing.html.
# Exit code: 0 all passed, 1 a test failed, 64 wrong use, 69 something needed is missing.
set -euo pipefail
cd "$(dirname "$0")"
exec </dev/null

full=0
for argument in "$@"; do
    case "$argument" in
        --full) full=1 ;;
        -h | --help) sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) echo "test.sh: unknown argument '$argument'; see ./test.sh --help" >&2; exit 64 ;;
    esac
done

MITMPROXY_VERSION=11.0.2
SCHEMATHESIS_VERSION=4.32.5
HELM_VERSION=v3.22.0
KUBECONFORM_VERSION=v0.7.0
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
tools=$target/test-tools
log=$target/test.log
report=$target/test-report.txt
mkdir -p "$tools"

say() { printf '\n== %s\n' "$*"; }
missing() { echo "test.sh: $*" >&2; exit 69; }

# Each line: a file that must exist, and the Debian package that brings it.
needed_files() {
    cat <<'LIST'
/usr/sbin/squid squid
/usr/lib/squid/basic_ncsa_auth squid
/usr/bin/openssl openssl
/usr/bin/microsocks microsocks
/usr/bin/taskset util-linux
/usr/bin/stdbuf coreutils
/usr/bin/redis-server redis-server
/usr/bin/redis-cli redis-tools
/usr/sbin/haproxy haproxy
/usr/sbin/nginx nginx
/usr/lib/nginx/modules/ngx_stream_module.so libnginx-mod-stream
/usr/bin/systemd-analyze systemd
/usr/bin/prometheus prometheus
/usr/bin/valgrind valgrind
LIST
    # The module that makes virtual environments has the version of Python in its path.
    if ! /usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null; then
        echo "/nonexistent/python3-venv python3-venv"
    fi
    # So have the server programs of PostgreSQL.
    if ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
        echo "/nonexistent/postgresql postgresql"
    fi
}

install_packages() {
    local packages
    packages=$(needed_files | while read -r file package; do [ -e "$file" ] || echo "$package"; done | sort -u | xargs)
    [ -n "$packages" ] || return 0
    command -v apt-get >/dev/null || missing "the tests need $packages, and there is no apt-get here; install them by hand"
    local root=()
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null \
            || missing "the tests need $packages; run: sudo apt-get install --no-install-recommends $packages"
        root=(sudo -n)
    fi
    say "Installing $packages"
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    # A service that a package would start at once is not wanted: the tests start their own.
    local install=("${root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends)
    case " $packages " in *" postgresql "*)
        # Nor is a cluster that the package would make.
        "${install[@]}" postgresql-common \
            && "${root[@]}" sed -i 's/^#\? *create_main_cluster *=.*/create_main_cluster = false/' \
                /etc/postgresql-common/createcluster.conf \
            || missing "apt-get cannot install postgresql-common; see its messages above"
    esac
    # shellcheck disable=SC2086
    "${install[@]}" $packages || missing "apt-get cannot install $packages; see its messages above"
}

install_mitmproxy() {
    if [ -n "${CULVERT_MITMDUMP:-}" ]; then
        return 0
    fi
    local place=$tools/mitmproxy
    # Not grep -q, which stops reading, at which mitmdump fails.
    if ! "$place/bin/mitmdump" --version 2>/dev/null | grep -w "$MITMPROXY_VERSION" >/dev/null; then
        say "Installing mitmproxy $MITMPROXY_VERSION into $place"
        rm -rf "$place"
        /usr/bin/python3 -m venv "$place"
        "$place/bin/pip" install -q --disable-pip-version-check "mitmproxy==$MITMPROXY_VERSION" \
            || missing "pip cannot install mitmproxy $MITMPROXY_VERSION; set CULVERT_MITMDUMP to a mitmdump of your own"
    fi
    export CULVERT_MITMDUMP=$place/bin/mitmdump
}

install_schemathesis() {
    if [ -n "${CULVERT_SCHEMATHESIS:-}" ]; then
        return 0
    fi
    local place=$tools/schemathesis
    if ! "$place/bin/st" --version 2>/dev/null | grep -w "$SCHEMATHESIS_VERSION" >/dev/null; then
        say "Installing schemathesis $SCHEMATHESIS_VERSION into $place"
        rm -rf "$place"
        /usr/bin/python3 -m venv "$place"
        "$place/bin/pip" install -q --disable-pip-version-check "schemathesis==$SCHEMATHESIS_VERSION" \
            || missing "pip cannot install schemathesis $SCHEMATHESIS_VERSION; set CULVERT_SCHEMATHESIS to an st of your own"
    fi
    export CULVERT_SCHEMATHESIS=$place/bin/st
}

# From the Go module proxy. Without Go the tests of the chart say that they are skipped; in CI that is a failure.
install_go_tool() {
    local variable=$1 module=$2 package=$3 version=$4 place=$tools/go/bin
    local program=$place/${package##*/}
    if [ -n "${!variable:-}" ]; then
        return 0
    fi
    if ! command -v go >/dev/null; then
        if [ ! -x "$program" ]; then
            [ -z "${CI:-}" ] || missing "the tests of the chart need Go, to install ${package##*/}; or set $variable"
            echo "Without Go, and without $variable, the tests of the chart are skipped."
            return 0
        fi
    elif ! go version -m "$program" 2>/dev/null \
        | awk -v module="$module" -v version="$version" \
            '$1 == "mod" && $2 == module && $3 == version { found = 1 } END { exit !found }'; then
        say "Installing ${package##*/} $version into $place"
        GOBIN=$place go install "$package@$version" \
            || missing "go cannot install $package $version; set $variable to a ${package##*/} of your own"
    fi
    export "$variable=$program"
}

install_all() {
    install_packages
    install_mitmproxy
    install_schemathesis
    install_go_tool CULVERT_HELM helm.sh/helm/v3 helm.sh/helm/v3/cmd/helm "$HELM_VERSION"
    install_go_tool CULVERT_KUBECONFORM github.com/yannh/kubeconform github.com/yannh/kubeconform/cmd/kubeconform \
        "$KUBECONFORM_VERSION"
}

command -v cargo >/dev/null || missing "cargo is missing; install Rust from https://rustup.rs"
command -v cc >/dev/null || missing "a C compiler is missing; run: sudo apt-get install build-essential"
# Cargo takes what is built with and without it for different programs, so whoever wants to have one of test.sh's
# anew without building everything again sets it, too.
export RUSTC_WORKSPACE_WRAPPER=$PWD/scripts/rustc-for-tests
start=$SECONDS
# Beside the build, which is for the processor what this is for the network.
install_all &
installing=$!

say "Building everything, once"
built_all=1
cargo test --workspace --release --locked --no-run --quiet --timings || built_all=0
wait "$installing"
[ "$built_all" = 1 ] || exit 1
# Again, for the variables: everything is there now.
install_all >/dev/null
export CULVERT_BIN_DIR=$target/release
for binary in culvert culvert-relay culvert-broker-api culvert-loadtest; do
    [ -x "$CULVERT_BIN_DIR/$binary" ] || missing "the build left no $CULVERT_BIN_DIR/$binary"
done
built=$((SECONDS - start))

say "Testing"
: >"$report"
export CULVERT_TEST_REPORT=$report
if [ "$full" = 1 ]; then
    export CULVERT_TEST_FULL=1
    CULVERT_K6=$(loadtest/k6/install) || missing "the load test of the broker needs k6; see the messages above"
    export CULVERT_K6
fi
status=0
cargo test --workspace --release --locked --no-fail-fast -- --quiet 2>&1 | tee "$log" || status=1

count() { awk -v what="$1" '/^test result:/ { for (i = 1; i <= NF; i++) if ($(i + 1) ~ "^" what) sum += $i } END { print sum + 0 }' "$log"; }
passed=$(count passed) failed=$(count failed) ignored=$(count ignored)

say "Summary"
if [ -s "$report" ]; then
    echo "Measured on this machine ($(nproc) cores):"
    sort "$report" | sed 's/^/  /'
fi
if [ "$failed" != 0 ]; then
    echo "Failed:"
    sed -n 's/^    \([A-Za-z0-9_:]*\)$/  \1/p' "$log" | sort -u
fi
echo "$passed passed, $failed failed, $ignored ignored; ready to test after $built s, done after $((SECONDS - start)) s; log: $log"
# An ignored test is one that nobody runs.
[ "$ignored" = 0 ] || status=1
[ "$passed" != 0 ] || status=1
[ "$status" = 0 ] || echo "NOT PASSED"
exit "$status"
