#!/usr/bin/env bash
# Builds the programs of Culvert as static binaries, stripped, with what else an image of them needs.
#
#   deploy/build-static.sh [ARCHITECTURE] FOLDER
#
# ARCHITECTURE is amd64 or arm64; without it, this machine's. For the other one a cross compiler is needed, which
# the script installs where it is root on Debian. FOLDER gets culvert, culvert-relay, culvert-broker-api,
# culvert-loadtest, ca-certificates.crt and nsswitch.conf. CARGO_TARGET_DIR counts; CULVERT_COMMIT is the commit that
# the programs name.
#
# Exit code: 0 done, 64 wrong use, 69 something needed is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

missing() { echo "build-static.sh: $*" >&2; exit 69; }
case $# in
    1) architecture=$(dpkg --print-architecture 2>/dev/null || uname -m) folder=$1 ;;
    2) architecture=$1 folder=$2 ;;
    *) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 64 ;;
esac
case $architecture in
    amd64 | x86_64) triple=x86_64-unknown-linux-gnu gnu=x86_64-linux-gnu packages='gcc-x86-64-linux-gnu libc6-dev-amd64-cross' ;;
    arm64 | aarch64) triple=aarch64-unknown-linux-gnu gnu=aarch64-linux-gnu packages='gcc-aarch64-linux-gnu libc6-dev-arm64-cross' ;;
    *) echo "build-static.sh: the architecture is amd64 or arm64, not $architecture" >&2; exit 64 ;;
esac

install() {
    if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then missing "install $*"; fi
    apt-get update -qq
    # shellcheck disable=SC2068
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $@ || missing "apt-get cannot install $*"
}

command -v cargo >/dev/null || missing "cargo is missing; install Rust from https://rustup.rs"
certificates=/etc/ssl/certs/ca-certificates.crt
[ -s "$certificates" ] || install ca-certificates
if [ "$(uname -m)" != "${gnu%%-*}" ]; then
    # shellcheck disable=SC2086
    command -v "$gnu-gcc" >/dev/null || install $packages
    rustup target add "$triple" 2>/dev/null || [ -d "$(rustc --print sysroot)/lib/rustlib/$triple" ] \
        || missing "rustup cannot add the target $triple"
    name=${triple//-/_}
    export "CC_$name=$gnu-gcc" "AR_$name=$gnu-ar"
    export "CARGO_TARGET_${name^^}_LINKER=$gnu-gcc"
fi

[ -n "${CULVERT_COMMIT:-}" ] || unset CULVERT_COMMIT
# Everything in one file: no loader, no libc, no certificates of a base image.
export RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static"
# Symbols are two thirds of a binary, and nobody debugs in an image.
export CARGO_PROFILE_RELEASE_STRIP=symbols CARGO_PROFILE_RELEASE_DEBUG=0
cargo build --release --locked --target "$triple" \
    -p culvert -p culvert-relay -p culvert-broker-api -p culvert-loadtest --bins
built=${CARGO_TARGET_DIR:-target}/$triple/release
mkdir -p "$folder"
for program in culvert culvert-relay culvert-broker-api culvert-loadtest; do
    cp "$built/$program" "$folder/$program"
done
cp "$certificates" "$folder/ca-certificates.crt"
echo 'hosts: files dns' >"$folder/nsswitch.conf"
