//! The Helm chart: what it makes of values, what it refuses, and whether its manual is true.
//!
//! Everything is rendered by Helm itself and validated by kubeconform against the schemas of the oldest and the
//! newest Kubernetes that the chart supports. With `CULVERT_UPDATE=1` what is generated is written anew: the
//! snapshots in `ci/snapshots`, the README, the lists of settings in the schema, and the copies of `deploy/`.
#![allow(clippy::unwrap_used, reason = "helpers of tests: what fails here fails the test")]

mod files;
mod manifests;
mod manual;
mod notes;
mod refusals;
mod render;
mod settings;
mod snapshots;
mod tools;
mod upgrades;
mod yaml;
