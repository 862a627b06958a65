//! One direction of a connection: what is read is written later, slower, or never.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::faults::{Faults, Flow, Mode};

/// Most bytes read at once: one TLS record.
const CHUNK: usize = 16 * 1024;
/// Most bytes that wait for their time, so that a delay does not become a rate limit below 10 MiB/s.
const MOST_WAITING: usize = 1024 * 1024;
/// A limited direction moves in steps of this length.
const STEP: Duration = Duration::from_millis(20);

/// What a pump obeys and whom it tells.
pub(super) struct Meter<Record, Count> {
    pub(super) faults: watch::Receiver<Faults>,
    /// Which of the directions this is.
    pub(super) flow: fn(&Faults) -> Flow,
    /// Told what was read.
    pub(super) record: Option<Record>,
    /// Told how much was written.
    pub(super) count: Count,
}

/// Moves bytes until the reader's end, which is passed on to the writer.
pub(super) async fn pump<R, W, Record, Count>(
    mut reader: R,
    mut writer: W,
    mut meter: Meter<Record, Count>,
) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    Record: Fn(&[u8]),
    Count: Fn(u64),
{
    let mut waiting: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut waiting_bytes = 0;
    let mut ended = false;
    let mut not_before = Instant::now();
    let mut buffer = vec![0; CHUNK];
    loop {
        let flow = (meter.flow)(&meter.faults.borrow_and_update());
        let moving = flow.mode != Mode::Stall;
        let due = waiting.front().map_or(not_before, |(due, _)| not_before.max(*due));
        if ended && waiting.is_empty() && flow.mode == Mode::Pass {
            return writer.shutdown().await;
        }
        tokio::select! {
            changed = meter.faults.changed() => {
                // The controls are gone with the proxy, and this task with them.
                if changed.is_err() {
                    return Ok(());
                }
            }
            read = reader.read(&mut buffer), if moving && !ended && waiting_bytes < MOST_WAITING => {
                let bytes = &buffer[..read?];
                ended = bytes.is_empty();
                if let Some(record) = meter.record.as_ref().filter(|_| !ended) {
                    record(bytes);
                }
                if !ended && flow.mode != Mode::Deaf {
                    waiting_bytes += bytes.len();
                    waiting.push_back((Instant::now() + flow.delay, bytes.to_vec()));
                }
            }
            () = sleep_until(due), if moving && !waiting.is_empty() => {
                let Some((due, mut bytes)) = waiting.pop_front() else { continue };
                let rest = flow.bytes_per_second.map(|rate| bytes.split_off(step(rate).min(bytes.len())));
                waiting_bytes -= bytes.len();
                if let (Some(rate), Some(rest)) = (flow.bytes_per_second, rest) {
                    not_before = Instant::now() + Duration::from_secs_f64(bytes.len() as f64 / f64::from(rate));
                    if !rest.is_empty() {
                        waiting.push_front((due, rest));
                    }
                }
                writer.write_all(&bytes).await?;
                writer.flush().await?;
                (meter.count)(bytes.len() as u64);
            }
        }
    }
}

/// Bytes of one step at a rate; never none, or a low rate would be a stall.
fn step(bytes_per_second: u32) -> usize {
    let bytes = u128::from(bytes_per_second) * STEP.as_millis() / 1000;
    usize::try_from(bytes).unwrap_or(usize::MAX).clamp(1, CHUNK)
}
