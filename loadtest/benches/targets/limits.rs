//! What the machine allows, measured in the same run, on the same core and under the same load as the relay.

mod alone;
mod messages;

pub(crate) use alone::{AloneArgs, alone};

use anyhow::{Context, Result, ensure};
use culvert_testkit::process::Plan;

use crate::Bench;
use crate::frames::rounds;
use crate::machine::{self, median};
use crate::middle::{Kind, Security};
use crate::pairs::Stretch;
use crate::verdict::Bound;

/// Payload bytes of the frames that are compared by bytes, and by frames.
const SIZES: [usize; 2] = [16 << 10, 64];
/// The relay's bytes a second and core, as parts of those of the loop and of haproxy with TLS.
const TARGETS: (f64, f64) = (0.75, 0.70);
/// All that forward, in the order of the table.
const KINDS: [Kind; 7] = [
    Kind::Copier(64),
    Kind::Copier(16),
    Kind::Masker(64),
    Kind::Haproxy(Security::Clear),
    Kind::Relay(Security::Clear),
    Kind::Haproxy(Security::Tls),
    Kind::Relay(Security::Tls),
];

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    println!(
        "the relay beside what does less; {} pairs, {} in flight each",
        bench.args.pairs, bench.args.window
    );
    println!("  bytes                  frames/s    µs CPU each   GB/s a core   core busy");
    for payload in SIZES {
        let all = rounds(bench, bench.load(payload), &KINDS).await?;
        let of = |kind: Kind, figure: &dyn Fn(&Stretch) -> f64| {
            let stretches = all.iter().find(|(of, _)| *of == kind).map(|(_, stretches)| stretches);
            median(stretches.into_iter().flatten().map(figure))
        };
        for kind in KINDS {
            println!(
                "{payload:>7} {:<15} {:>12.0} {:>12.2} {:>13.2} {:>10.0} %",
                kind.name(),
                of(kind, &Stretch::rate),
                of(kind, &Stretch::micros),
                of(kind, &|stretch| stretch.gigabytes(payload)),
                of(kind, &Stretch::busy),
            );
        }
        let part = |of_kind: Kind, beside: Kind| of(beside, &Stretch::micros) / of(of_kind, &Stretch::micros);
        let beside = |copier| part(Kind::Relay(Security::Clear), copier);
        let clear = beside(Kind::Copier(64)).min(beside(Kind::Copier(16)));
        let masked = beside(Kind::Masker(64));
        let tls = part(Kind::Relay(Security::Tls), Kind::Haproxy(Security::Tls));
        let tcp = part(Kind::Relay(Security::Clear), Kind::Haproxy(Security::Clear));
        println!(
            "{payload:>7} the relay forwards {clear:.2} of the fastest loop's bytes per second of CPU, {masked:.2} of \
             those of the one that masks and {tcp:.2} of haproxy's; with TLS {tls:.2} of haproxy's"
        );
        if payload == SIZES[0] {
            let what = "16 KiB, clear, bytes beside a copying loop".to_owned();
            bench.verdicts.judge(what, clear, "of it", Bound::AtLeast(TARGETS.0));
            let what = "16 KiB, TLS, bytes beside haproxy with TLS on both sides".to_owned();
            bench.verdicts.judge(what, tls, "of it", Bound::AtLeast(TARGETS.1));
        }
    }
    alone_on_the_core(bench).await?;
    messages::run(bench).await
}

/// Runs [`alone`] as a process on the core of what is measured, and shows what it prints.
async fn alone_on_the_core(bench: &Bench) -> Result<()> {
    let program = std::env::current_exe()?;
    let seconds = bench.seconds();
    let plan = Plan::new("the measuring process", program).args(["alone", "--seconds", &seconds.to_string()]);
    let mut process = machine::beside(async { plan.start() }).await?;
    let limit = std::time::Duration::from_secs_f64(60.0 + 20.0 * seconds);
    process.succeeds(limit).await.context("what needs no load")?;
    let text = process.output().text(culvert_testkit::process::Source::Stdout);
    ensure!(!text.is_empty(), process.failure("measured nothing"));
    print!("{text}");
    Ok(())
}
