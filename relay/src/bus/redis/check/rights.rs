//! What the Redis user of a node has to be allowed, and whether it is.
//!
//! Commands are tried without being carried out: Redis checks the rights of each when it is queued in a
//! transaction, and the transaction is discarded.

use culvert_wire::{NodeId, TopicId};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, Pipeline, Value};

use super::super::incarnation::Incarnation;
use super::super::keys::Keys;
use super::super::reach::{Place, Reach, ReachError};

/// What a command is tried on.
#[derive(Clone, Copy)]
enum On {
    Nothing,
    /// The leases, what is revoked, and its revision.
    Shared,
    /// A topic.
    Topic,
    /// What a node has registered, and the lock of its sweep.
    Node,
    /// An inbox.
    Inbox,
}

/// Where a command is used.
#[derive(Clone, Copy, PartialEq)]
enum Where {
    Everywhere,
    Cluster,
    NotCluster,
}

/// A command as an ACL names it, what it is tried on, and what follows that.
type Right = (&'static str, On, &'static [&'static str], Where);

/// Every command that a node sends, those inside scripts included.
const RIGHTS: &[Right] = &[
    // Borrowed connections, and this check.
    ("ping", On::Nothing, &[], Where::Everywhere),
    ("unwatch", On::Nothing, &[], Where::NotCluster),
    ("info", On::Nothing, &[], Where::Everywhere),
    ("cluster|slots", On::Nothing, &[], Where::Cluster),
    // Leases and revocations, in scripts.
    ("script|load", On::Nothing, &["return 1"], Where::Everywhere),
    ("evalsha", On::Shared, &[], Where::Everywhere),
    ("time", On::Nothing, &[], Where::Everywhere),
    ("get", On::Shared, &[], Where::Everywhere),
    ("set", On::Shared, &["v"], Where::Everywhere),
    ("exists", On::Shared, &[], Where::Everywhere),
    ("hget", On::Shared, &["f"], Where::Everywhere),
    ("hgetall", On::Shared, &[], Where::Everywhere),
    ("hset", On::Shared, &["f", "v"], Where::Everywhere),
    ("hdel", On::Shared, &["f"], Where::Everywhere),
    // The register of topics.
    ("hset", On::Topic, &["f", "v"], Where::Everywhere),
    ("hlen", On::Topic, &[], Where::Everywhere),
    ("hkeys", On::Topic, &[], Where::Everywhere),
    ("hrandfield", On::Topic, &["1", "withvalues"], Where::Everywhere),
    ("eval", On::Topic, &[], Where::Everywhere),
    ("hget", On::Topic, &["f"], Where::Everywhere),
    ("hdel", On::Topic, &["f"], Where::Everywhere),
    // What each node has registered, and its sweep.
    ("sadd", On::Node, &["m"], Where::Everywhere),
    ("srem", On::Node, &["m"], Where::Everywhere),
    ("sscan", On::Node, &["0"], Where::Everywhere),
    ("exists", On::Node, &[], Where::Everywhere),
    ("set", On::Node, &["v"], Where::Everywhere),
    ("pexpire", On::Node, &["1"], Where::Everywhere),
    ("del", On::Node, &[], Where::Everywhere),
    // Inboxes.
    ("publish", On::Inbox, &["m"], Where::NotCluster),
    ("subscribe", On::Inbox, &[], Where::NotCluster),
    ("spublish", On::Inbox, &["m"], Where::Cluster),
    ("ssubscribe", On::Inbox, &[], Where::Cluster),
];

/// Needed by this check itself, which cannot go on without them.
const TRANSACTION: [&str; 2] = ["multi", "discard"];
/// Allows this check to see how much may wait for a subscriber; without it there is a warning.
const OPTIONAL: &str = "config|get";

/// What a user needs beside its password, spelled as for `ACL SETUSER`.
pub fn rule(keys: &Keys, is_cluster: bool) -> String {
    let mut words: Vec<String> = keys.key_patterns().iter().map(|pattern| format!("~{pattern}")).collect();
    words.push("resetchannels".to_owned());
    words.push(format!("&{}", keys.channel_pattern()));
    words.push("-@all".to_owned());
    let used = used(is_cluster).map(|(command, ..)| *command);
    let mut commands: Vec<&str> = TRANSACTION.into_iter().chain([OPTIONAL]).chain(used).collect();
    commands.sort_unstable();
    commands.dedup();
    words.extend(commands.into_iter().map(|command| format!("+{command}")));
    words.join(" ")
}

fn used(is_cluster: bool) -> impl Iterator<Item = &'static Right> {
    let elsewhere = if is_cluster { Where::NotCluster } else { Where::Cluster };
    RIGHTS.iter().filter(move |(.., place)| *place != elsewhere)
}

/// Says what the user lacks at this server, if anything.
pub(super) async fn missing(
    reach: &Reach,
    place: &Place,
    connection: &mut MultiplexedConnection,
) -> Result<Option<String>, ReachError> {
    let mut lacks = Lacks::default();
    for command in ["MULTI", "DISCARD"] {
        // Without a transaction the commands below would be carried out.
        match redis::cmd(command).exec_async(connection).await {
            Ok(()) => {}
            Err(error) if error.code() == Some("NOPERM") => {
                lacks.commands.push(command.to_lowercase());
                return Ok(Some(lacks.sentence(reach, place)));
            }
            Err(error) => return Err(reach.error(place, error)),
        }
    }
    let rights: Vec<&Right> = used(reach.is_cluster()).collect();
    let mut tried = Pipeline::new();
    tried.cmd("MULTI");
    for right in &rights {
        tried.add_command(command(reach.keys(), right));
    }
    tried.cmd("DISCARD");
    let answers = connection.req_packed_commands(&tried, 0, rights.len() + 2).await;
    let answers = answers.map_err(|error| reach.error(place, error))?;
    for ((name, on, ..), answer) in rights.iter().zip(answers.iter().skip(1)) {
        // Any other error, such as where else the slot is, comes after the rights were checked.
        if let Value::ServerError(error) = answer
            && error.code() == "NOPERM"
        {
            lacks.add(name, *on, error.details().unwrap_or_default(), reach.keys());
        }
    }
    Ok((!lacks.is_empty()).then(|| lacks.sentence(reach, place)))
}

/// A command that means nothing, on a name of the kind it is used on.
fn command(keys: &Keys, (name, on, rest, _): &Right) -> Cmd {
    let mut command = Cmd::new();
    for word in name.split('|') {
        command.arg(word.to_uppercase());
    }
    match *name {
        "evalsha" => command.arg("0".repeat(40)).arg(1),
        "eval" => command.arg("return 1").arg(1),
        _ => &mut command,
    };
    let nobody = Incarnation { instance: 0, term: 0 };
    match on {
        On::Nothing => &mut command,
        On::Shared => command.arg(keys.nodes()),
        On::Topic => command.arg(keys.topic(&TopicId([0; 32]))),
        On::Node => command.arg(keys.memberships(NodeId(0), nobody)),
        On::Inbox => command.arg(keys.inbox(NodeId(0), 0)),
    };
    for word in *rest {
        command.arg(*word);
    }
    command
}

/// What is not allowed.
#[derive(Default)]
struct Lacks {
    commands: Vec<String>,
    keys: Vec<String>,
    channels: Vec<String>,
}

impl Lacks {
    fn add(&mut self, command: &str, on: On, details: &str, keys: &Keys) {
        let [plain, braced] = keys.key_patterns();
        // The rest of the words differs between versions.
        let (list, what) = if details.contains("channel") {
            (&mut self.channels, keys.channel_pattern())
        } else if details.contains(" key") {
            (&mut self.keys, if matches!(on, On::Shared) { braced } else { plain })
        } else {
            (&mut self.commands, command.to_owned())
        };
        if !list.contains(&what) {
            list.push(what);
        }
    }

    fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.keys.is_empty() && self.channels.is_empty()
    }

    fn sentence(&self, reach: &Reach, place: &Place) -> String {
        let user = reach.user().unwrap_or("default");
        let lists = [("run", &self.commands), ("use keys", &self.keys), ("use channels", &self.channels)];
        let lacks: Vec<String> = lists
            .iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(what, list)| format!("{what} {}", list.join(", ")))
            .collect();
        format!(
            "redis at {place} does not let the user {user} {}; allow it with ACL SETUSER {user} {}",
            lacks.join("; nor "),
            rule(reach.keys(), reach.is_cluster())
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_names_each_command_of_its_mode_once() {
        let keys = Keys::new("culvert");
        let alone = rule(&keys, false);
        assert!(
            alone.starts_with("~culvert:* ~{culvert}:* resetchannels &culvert:in:* -@all +config|get +del "),
            "{alone}"
        );
        for (word, in_alone, in_cluster) in
            [("+publish", 1, 0), ("+spublish", 0, 1), ("+hset", 1, 1), ("+cluster|slots", 0, 1)]
        {
            let count = |rule: &str| rule.split(' ').filter(|other| *other == word).count();
            assert_eq!((count(&alone), count(&rule(&keys, true))), (in_alone, in_cluster), "{word}");
        }
    }

    #[test]
    fn what_is_missing_is_told_from_the_words_of_every_version() {
        let keys = Keys::new("culvert");
        let mut lacks = Lacks::default();
        for (command, on, details) in [
            ("hset", On::Topic, "this user has no permissions to run the 'hset' command or its subcommand"),
            ("hkeys", On::Topic, "User relay has no permissions to run the 'hkeys' command"),
            ("hdel", On::Topic, "this user has no permissions to access one of the keys used as arguments"),
            ("hlen", On::Topic, "No permissions to access a key"),
            ("hget", On::Shared, "User relay has no permissions to access the '{culvert}:nodes' key"),
            (
                "publish",
                On::Inbox,
                "this user has no permissions to access one of the channels used as arguments",
            ),
        ] {
            lacks.add(command, on, details, &keys);
        }
        assert_eq!(lacks.commands, ["hset", "hkeys"]);
        assert_eq!(lacks.keys, ["culvert:*", "{culvert}:*"]);
        assert_eq!(lacks.channels, ["culvert:in:*"]);
    }
}
