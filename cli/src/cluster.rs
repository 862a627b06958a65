//! `culvert cluster`: what the Redis of a cluster says about its nodes.

use std::io::{self, Write};

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use culvert_relay::args::RedisArgs;
use culvert_relay::bus::redis::control::{Control, Status};
use culvert_relay::bus::redis::nodes::NodeLease;
use culvert_service_kit::config::Problems;
use culvert_wire::NodeId;
use serde_json::{Value, json};

use crate::cli::{ClusterCommand, StatusArgs};
use crate::failure::Code;
use crate::ticket::{Span, now};

pub(crate) async fn run(command: ClusterCommand) -> Result<()> {
    match command {
        ClusterCommand::Status(args) => status(&args).await,
    }
}

/// The way to a cluster's Redis.
pub(crate) fn control(args: &RedisArgs) -> Result<Control> {
    let mut problems = Problems::new();
    let settings = args.settings(&mut problems);
    if settings.is_none() && problems.is_empty() {
        problems
            .push("redis", "is missing; say where the relays' Redis is with --redis or CULVERT_RELAY_REDIS");
    }
    let settings = problems.finish(settings).map_err(|problems| Code::Usage.with(problems))?;
    Control::new(&settings).context("cannot prepare the way to Redis")
}

async fn status(args: &StatusArgs) -> Result<()> {
    let status = control(&args.redis)?.status().await?;
    let mut out = io::stdout();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&as_json(&status))?)?;
        return Ok(());
    }
    if status.nodes.taken() == 0 {
        return Err(Code::Failed.because(
            "no node is registered in this Redis; compare redis, and redis-prefix, with the relays' settings",
        ));
    }
    writeln!(out, "{}\n\n{}", table(&status).trim_fmt(), summary(&status))?;
    for finding in status.redis.problems.iter().chain(&status.redis.warnings) {
        writeln!(out, "Redis: {finding}")?;
    }
    Ok(())
}

fn table(status: &Status) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["NODE", "INSTANCE", "VERSION", "BUS", "UP", "LEASE", "PEERS", "MEMBERSHIPS", "HEALTH"]);
    for (node, lease) in &status.nodes.leases {
        let about = &lease.about;
        table.add_row([
            node.to_string(),
            lease.incarnation.to_string(),
            about.version.clone(),
            format!("{}-{}", about.bus.0, about.bus.1),
            Span(now().saturating_sub(about.since)).to_string(),
            age(status, lease),
            about.connections.to_string(),
            about.memberships.to_string(),
            health(status, lease),
        ]);
    }
    for node in &status.nodes.unreadable {
        table.add_row([&node.to_string(), "?", "?", "?", "?", "?", "?", "?", "of a version unknown here"]);
    }
    for numbers in [0, 5, 6, 7] {
        if let Some(column) = table.column_mut(numbers) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// How long ago a lease was renewed, and for how long; that happens many times before it ends.
fn age(status: &Status, lease: &NodeLease) -> String {
    let seconds = |millis: u64| format!("{}.{}", millis / 1000, millis % 1000 / 100);
    match lease.expires.checked_sub(status.nodes.now) {
        Some(left) if left > 0 => {
            let age = lease.about.lease.saturating_sub(left);
            format!("{} of {} s", seconds(age), seconds(lease.about.lease))
        }
        _ => "expired".to_owned(),
    }
}

fn health(status: &Status, lease: &NodeLease) -> String {
    match lease.about.degraded {
        _ if lease.expires <= status.nodes.now => "dead; what it left is being removed".to_owned(),
        Some(since) => format!("degraded for {}", Span(now().saturating_sub(since))),
        None => "ok".to_owned(),
    }
}

fn summary(status: &Status) -> String {
    let live = || status.nodes.live().map(|(_, lease)| &lease.about);
    let peers: usize = live().map(|about| about.connections).sum();
    let memberships: usize = live().map(|about| about.memberships).sum();
    format!(
        "{}, {}, {}; {} in force.",
        count(live().count(), "live node"),
        count(peers, "connection"),
        count(memberships, "membership"),
        count(status.revocations, "revocation"),
    )
}

fn count(number: usize, of: &str) -> String {
    format!("{number} {of}{}", if number == 1 { "" } else { "s" })
}

fn as_json(status: &Status) -> Value {
    let node = |(node, lease): (&NodeId, &NodeLease)| {
        let about = &lease.about;
        json!({
            "node": node.to_string(),
            "instance": format!("{:016x}", lease.incarnation.instance),
            "term": lease.incarnation.term,
            "version": about.version,
            "bus": { "oldest": about.bus.0, "newest": about.bus.1 },
            "since": about.since,
            "live": lease.expires > status.nodes.now,
            "lease_ms": about.lease,
            "lease_ends_in_ms": lease.expires.saturating_sub(status.nodes.now),
            "connections": about.connections,
            "memberships": about.memberships,
            "degraded_since": about.degraded,
        })
    };
    json!({
        "nodes": status.nodes.leases.iter().map(node).collect::<Vec<_>>(),
        "unreadable": status.nodes.unreadable.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "revocations": status.revocations,
        "redis": { "problems": status.redis.problems, "warnings": status.redis.warnings },
    })
}
