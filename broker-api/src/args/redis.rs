//! The settings for Redis are those of the relay, under the broker's names.

use clap::Arg;

/// The broker's variable for one of the relay's, and what it means here where that differs.
const NAMES: &[(&str, &str, Option<&str>)] = &[
    (
        "redis",
        "CULVERT_BROKER_REDIS",
        Some(
            "Redis that connects this replica with the others, and with the relays of the institution: \
             redis:// addresses, rediss:// for TLS; of the server, of the Sentinels, or of some masters of a \
             Redis Cluster. Without it presence is in this process, which has to be the only one on its \
             database, and revocations do not reach the relays",
        ),
    ),
    ("redis-mode", "CULVERT_BROKER_REDIS_MODE", None),
    ("redis-sentinel-master", "CULVERT_BROKER_REDIS_SENTINEL_MASTER", None),
    ("redis-user", "CULVERT_BROKER_REDIS_USER", None),
    ("redis-password-file", "CULVERT_BROKER_REDIS_PASSWORD_FILE", None),
    ("redis-password", "CULVERT_BROKER_REDIS_PASSWORD", None),
    ("redis-sentinel-user", "CULVERT_BROKER_REDIS_SENTINEL_USER", None),
    ("redis-sentinel-password-file", "CULVERT_BROKER_REDIS_SENTINEL_PASSWORD_FILE", None),
    ("redis-sentinel-password", "CULVERT_BROKER_REDIS_SENTINEL_PASSWORD", None),
    ("redis-ca", "CULVERT_BROKER_REDIS_CA", None),
    (
        "redis-prefix",
        "CULVERT_BROKER_REDIS_PREFIX",
        Some(
            "How all keys and channels begin: the same as the relays', or revocations do not reach them; \
             institutions that share a Redis differ in it",
        ),
    ),
    (
        "redis-timeout",
        "CULVERT_BROKER_REDIS_TIMEOUT",
        Some("Longest wait for a connection to Redis, and for each answer; at most 2s"),
    ),
];

/// Gives a setting of the relay's its name in the broker.
pub(super) fn named(arg: Arg) -> Arg {
    let of_relay = arg.get_long().and_then(|long| NAMES.iter().find(|(name, ..)| *name == long));
    match of_relay {
        Some((_, variable, Some(help))) => arg.env(*variable).help(*help),
        Some((_, variable, None)) => arg.env(*variable),
        None => arg,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use crate::args::Args;

    #[test]
    fn no_variable_of_the_relay_is_a_setting_of_the_broker() {
        let command = Args::command();
        let variables: Vec<String> = command
            .get_arguments()
            .filter_map(|arg| arg.get_env())
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        assert!(variables.len() > 30, "{variables:?}");
        for variable in &variables {
            assert!(variable.starts_with("CULVERT_BROKER_"), "{variable}");
        }
    }
}
