//! The series of the bus through Redis. A doc comment is the help text.

/// Why a subscription of the inbox had to be made anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resubscription {
    /// Its connection was closed.
    Lost,
    /// Its connection was open and nothing came through it.
    Deaf,
    /// Another server serves its channel now: a slot moved, or a replica became the master.
    Moved,
}

impl Resubscription {
    /// Every reason.
    pub const ALL: &'static [Resubscription] =
        &[Resubscription::Lost, Resubscription::Deaf, Resubscription::Moved];

    /// The label.
    pub const fn name(self) -> &'static str {
        match self {
            Resubscription::Lost => "lost",
            Resubscription::Deaf => "deaf",
            Resubscription::Moved => "moved",
        }
    }
}

/// Which way something went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From this node.
    Sent,
    /// To this node.
    Received,
}

impl Direction {
    /// Both.
    pub const ALL: &'static [Direction] = &[Direction::Sent, Direction::Received];

    /// The label.
    pub const fn name(self) -> &'static str {
        match self {
            Direction::Sent => "sent",
            Direction::Received => "received",
        }
    }
}

/// Why a message from another node was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Discard {
    /// Its bytes are no message, or of a version that is not spoken here.
    Malformed,
    /// It is for a process that held this node's number before.
    Foreign,
    /// It is from a process whose lease is gone.
    Fenced,
    /// It is of an epoch that is over, or a repetition.
    Old,
    /// This node's own lease is in doubt.
    Invalid,
}

impl Discard {
    /// Every reason.
    pub const ALL: &'static [Discard] =
        &[Discard::Malformed, Discard::Foreign, Discard::Fenced, Discard::Old, Discard::Invalid];

    /// The label.
    pub const fn name(self) -> &'static str {
        match self {
            Discard::Malformed => "malformed",
            Discard::Foreign => "foreign",
            Discard::Fenced => "fenced",
            Discard::Old => "old",
            Discard::Invalid => "invalid",
        }
    }
}

/// Why a node began a new epoch towards another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EpochEnd {
    /// Redis did not say whether it had published.
    Unanswered,
    /// The other node missed something.
    Missed,
    /// The other node is gone, or this node's own lease lapsed.
    Lease,
}

impl EpochEnd {
    /// Every reason.
    pub const ALL: &'static [EpochEnd] = &[EpochEnd::Unanswered, EpochEnd::Missed, EpochEnd::Lease];

    /// The label.
    pub const fn name(self) -> &'static str {
        match self {
            EpochEnd::Unanswered => "unanswered",
            EpochEnd::Missed => "missed",
            EpochEnd::Lease => "lease",
        }
    }
}

/// How a node lost its lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseLoss {
    /// It kept its number under a higher term, because the lease or registrations may have had a gap.
    Lapsed,
    /// Another process has its number.
    Fenced,
}

impl LeaseLoss {
    /// Both.
    pub const ALL: &'static [LeaseLoss] = &[LeaseLoss::Lapsed, LeaseLoss::Fenced];

    /// The label.
    pub const fn name(self) -> &'static str {
        match self {
            LeaseLoss::Lapsed => "lapsed",
            LeaseLoss::Fenced => "fenced",
        }
    }
}

/// What is asked of the registry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Registers a membership and reads the topic.
    Join,
    /// Removes a membership.
    Leave,
    /// Reads a topic.
    Lookup,
    /// Registers a membership again, after the registry may have lost it.
    Renewal,
}

impl Operation {
    /// Every kind.
    pub const ALL: &'static [Operation] =
        &[Operation::Join, Operation::Leave, Operation::Lookup, Operation::Renewal];

    /// The label.
    pub const fn name(self) -> &'static str {
        match self {
            Operation::Join => "join",
            Operation::Leave => "leave",
            Operation::Lookup => "lookup",
            Operation::Renewal => "renewal",
        }
    }
}

culvert_service_kit::metric_set! {
    /// Series of one node's part of the bus.
    pub struct Metrics {
        /// Letters between this node and others, by direction.
        pub letters: counter "culvert_relay_bus_letters_total" { direction: Direction = Direction::ALL, Direction::name },
        /// Messages between this node and others, by direction; letters per message is the batching.
        pub messages: counter "culvert_relay_bus_messages_total" { direction: Direction = Direction::ALL, Direction::name },
        /// Bytes of those messages, by direction.
        pub bytes: counter "culvert_relay_bus_bytes_total" { direction: Direction = Direction::ALL, Direction::name },
        /// Seconds from the write of a batch of messages to the last of Redis' answers.
        pub flush_seconds: histogram "culvert_relay_bus_flush_seconds",
        /// Batches of messages that Redis did not answer in time, or whose connection ended.
        pub flush_failures: counter "culvert_relay_bus_flush_failures_total",
        /// Messages that nobody was subscribed to, or that Redis refused.
        pub unheard: counter "culvert_relay_bus_unheard_total",
        /// Times a flow to another node was found waiting for credit.
        pub credit_stalls: counter "culvert_relay_bus_credit_stalls_total",
        /// Letters from other nodes that never arrived here.
        pub lost: counter "culvert_relay_bus_lost_letters_total",
        /// Epochs towards other nodes that ended early, by reason.
        pub epochs: counter "culvert_relay_bus_epochs_ended_total" { reason: EpochEnd = EpochEnd::ALL, EpochEnd::name },
        /// Messages from other nodes that were not taken, by reason.
        pub discarded: counter "culvert_relay_bus_discarded_total" { reason: Discard = Discard::ALL, Discard::name },
        /// Bytes that wait for other nodes or for their confirmation.
        pub held_bytes: gauge "culvert_relay_bus_held_bytes",
        /// Those of them that are for the one node for which most are held.
        pub fullest_bytes: gauge "culvert_relay_bus_fullest_bytes",
        /// Most bytes that may be held for one other node, of redis-queue-bytes.
        pub most_bytes: gauge "culvert_relay_bus_fullest_bytes_limit",
        /// Subscriptions of this node's inbox that are confirmed and heard.
        pub subscriptions: gauge "culvert_relay_bus_subscriptions",
        /// Subscriptions of this node's inbox that ended and were made anew, by reason.
        pub resubscriptions: counter "culvert_relay_bus_resubscriptions_total" { reason: Resubscription = Resubscription::ALL, Resubscription::name },
        /// Attempts to subscribe this node's inbox that came to nothing; each is tried again.
        pub subscribe_failures: counter "culvert_relay_bus_subscribe_failures_total",
        /// 1 while the lease of this node is valid, 0 while the node takes no part in the bus.
        pub lease: gauge "culvert_relay_bus_lease",
        /// Times this node lost its lease, by how.
        pub lease_losses: counter "culvert_relay_bus_lease_losses_total" { loss: LeaseLoss = LeaseLoss::ALL, LeaseLoss::name },
        /// Seconds from asking for the lease to be renewed to Redis' answer.
        pub tick_seconds: histogram "culvert_relay_bus_tick_seconds",
        /// Times the lease was not confirmed because Redis did not answer or refused.
        pub tick_failures: counter "culvert_relay_bus_tick_failures_total",
        /// Live nodes in the cluster, this one included.
        pub nodes: gauge "culvert_relay_bus_nodes",
        /// Operations on the registry of topics that Redis confirmed, by kind.
        pub operations: counter "culvert_relay_bus_registry_operations_total" { kind: Operation = Operation::ALL, Operation::name },
        /// Operations on the registry of topics that failed or were given up, by kind.
        pub operation_failures: counter "culvert_relay_bus_registry_failures_total" { kind: Operation = Operation::ALL, Operation::name },
        /// Topics whose members on this node are to be registered again and are not yet.
        pub renewals_pending: gauge "culvert_relay_bus_renewals_pending",
        /// Memberships of dead nodes that this node removed from the registry.
        pub swept: counter "culvert_relay_bus_swept_total",
        /// Topics that this node's connections are in, as the bus follows them.
        pub roster_topics: gauge "culvert_relay_bus_roster_topics",
    }
}
