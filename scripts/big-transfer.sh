#!/usr/bin/env bash
# A large file between two `culvert` processes through a `culvert-relay` over TLS. In the middle the relay is
# killed with -9 and restarted, then the receiver is killed with -9 and a second `receive` goes on. Prints the
# peak resident memory of each process, the time, and what the second receiver fetched; fails if the BLAKE3
# differs, a process needs 64 MiB, or the second receive starts over.
#
#   scripts/big-transfer.sh [BYTES]      default 1 GiB; suffixes K, M, G
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

size=${1:-1G}
if ! bytes=$(numfmt --from=iec "$size" 2>/dev/null); then
    echo "big-transfer.sh: '$size' is no size; give bytes, or 64M, 1G" >&2
    exit 64
fi
export CULVERT_TRANSFER_BYTES=$bytes
if [ -z "${CULVERT_BIN_DIR:-}" ]; then
    cargo build --release --locked -p culvert -p culvert-relay --bins
    CULVERT_BIN_DIR=$(realpath "${CARGO_TARGET_DIR:-target}")/release
    export CULVERT_BIN_DIR
fi
exec cargo test --release --locked -p culvert-testkit --test alone -- \
    --exact transfer::a_large_file_survives_a_killed_relay_and_a_killed_receiver_in_64_mib_each --nocapture
