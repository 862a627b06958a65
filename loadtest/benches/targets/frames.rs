//! What a forwarded frame costs: processor time, or system calls.

use std::time::Duration;

use anyhow::Result;

use crate::Bench;
use crate::machine::median;
use crate::middle::{Kind, Security};
use crate::pairs::{Load, Stretch};
use crate::strace::{Syscalls, trace};
use crate::verdict::Bound;

/// Payload sizes, and what a frame may cost in clear text and with TLS: microseconds, or bytes a core.
const TARGETS: &[(usize, f64, f64)] = &[(64, 1.0, 1.4), (1024, 1.5, 2.2), (16 << 10, 1.1, 0.75)];
/// From this size on, bytes count and not frames.
const LARGE: usize = 16 << 10;

/// Runs every kind in turns and gives the stretches of each.
pub(crate) async fn rounds(bench: &Bench, load: Load, kinds: &[Kind]) -> Result<Vec<(Kind, Vec<Stretch>)>> {
    let mut all: Vec<(Kind, Vec<Stretch>)> = kinds.iter().map(|kind| (*kind, Vec::new())).collect();
    for round in 1..=bench.rounds() {
        for (kind, stretches) in &mut all {
            let middle = bench.surroundings.start(*kind).await?;
            let running = load.start(&middle).await?;
            bench.warm_up().await;
            let stretch = running.measure(&middle, bench.seconds()).await?;
            running.check()?;
            middle.stop().await?;
            bench.say(format_args!(
                "round {round}, {}, {} B: {:.0} frames/s, {:.2} µs each, its core busy {:.0} %, {} undelivered",
                kind.name(),
                load.payload,
                stretch.rate(),
                stretch.micros(),
                stretch.busy(),
                stretch.undelivered,
            ));
            stretches.push(stretch);
        }
    }
    Ok(all)
}

/// Processor time per frame of every size, in clear text and with TLS.
pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    println!("{} pairs, {} in flight each", bench.args.pairs, bench.args.window);
    println!("  bytes               frames/s    µs CPU each   GB/s a core   core busy");
    let kinds: Vec<Kind> = bench.securities().into_iter().map(Kind::Relay).collect();
    for (payload, clear, tls) in TARGETS {
        let all = rounds(bench, bench.load(*payload), &kinds).await?;
        for (kind, stretches) in all {
            let of = |figure: &dyn Fn(&Stretch) -> f64| median(stretches.iter().map(figure));
            let (micros, gigabytes) = (of(&Stretch::micros), of(&|stretch| stretch.gigabytes(*payload)));
            println!(
                "{payload:>7} {:<14} {:>10.0} {micros:>12.2} {gigabytes:>13.2} {:>10.0} %",
                kind.name(),
                of(&Stretch::rate),
                of(&Stretch::busy),
            );
            let target = if kind == Kind::Relay(Security::Clear) { *clear } else { *tls };
            let what = format!("frames of {payload} B, {}", kind.name());
            if *payload < LARGE {
                bench.verdicts.judge(what, micros, "µs", Bound::AtMost(target));
            } else {
                bench.verdicts.judge(what, gigabytes, "GB/s", Bound::AtLeast(target));
            }
        }
    }
    Ok(())
}

/// System calls per frame, under strace, which slows the relay down: only the counts mean anything.
pub(crate) async fn syscalls(bench: &mut Bench) -> Result<()> {
    println!("system calls per frame (strace -c -f)");
    for (payload, ..) in TARGETS {
        for security in bench.securities() {
            let middle = bench.surroundings.start(Kind::Relay(security)).await?;
            let running = bench.load(*payload).start(&middle).await?;
            bench.warm_up().await;
            let tracer = trace(middle.pid()).await?;
            let before = running.delivered();
            tokio::time::sleep(Duration::from_secs_f64(bench.seconds())).await;
            let frames = (running.delivered() - before) as f64;
            let Syscalls { total, most } = tracer.finish().await?;
            running.check()?;
            middle.stop().await?;
            let most = most.iter().map(|(name, calls)| format!("{name} {:.4}", *calls as f64 / frames));
            let most = most.collect::<Vec<_>>().join(", ");
            println!("{payload:>7} {:<6} {:.4}: {most}", security.name(), total as f64 / frames);
        }
    }
    Ok(())
}
