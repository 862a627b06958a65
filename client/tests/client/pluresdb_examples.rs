//! The examples of the predecessor's page, with only the crate's name and the mode changed.
//!
//! Each is the page's own program; what a test needs around it (a second peer, an end) is outside of it.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::uninlined_format_args,
    unreachable_pub,
    reason = "the examples are the page's own text"
)]

use std::time::Duration;

use tokio::time::timeout;

/// "Basic Example": it serves whoever connects until it is stopped, so it is given a peer and stopped.
mod basic {
    use culvert_client::{TransportConfig, TransportMode, create_transport, derive_topic};

    pub async fn main() -> anyhow::Result<()> {
        // Create a transport for your database
        let config = TransportConfig {
            mode: TransportMode::Memory,
            encryption: true,
            timeout_ms: 30000,
            ..Default::default()
        };
        let mut transport = create_transport(config);

        // Derive a topic from your database ID
        let db_id = "my-app-database";
        let topic = derive_topic(db_id);

        // Announce this peer on the topic (DHT)
        transport.announce(topic).await?;

        // Lookup other peers on the same topic
        let peers = transport.lookup(topic).await?;
        println!("Found {} peers", peers.len());

        // Connect and listen for incoming connections
        let mut connections = transport.connect(topic).await?;
        while let Some(mut conn) = connections.recv().await {
            println!("New peer connected: {}", conn.peer_id());

            // Send a message
            conn.send(b"Hello from PluresDB!").await?;

            // Receive messages
            while let Ok(Some(msg)) = conn.receive().await {
                println!("Received: {:?}", msg);
            }
        }

        Ok(())
    }
}

#[tokio::test]
async fn the_basic_example_greets_a_peer() {
    use culvert_client::{MemoryTransport, Transport, derive_topic};
    let peer = async {
        let mut transport = MemoryTransport::new();
        let mut connections = transport.connect(derive_topic("my-app-database")).await.unwrap();
        let mut connection = connections.recv().await.unwrap();
        assert_eq!(connection.receive().await.unwrap().unwrap(), b"Hello from PluresDB!");
        connection.send(b"an answer").await.unwrap();
        connection.flush().await.unwrap();
    };
    let both = async {
        tokio::select! {
            ended = basic::main() => panic!("the example ended by itself: {ended:?}"),
            () = peer => {}
        }
    };
    timeout(Duration::from_secs(20), both).await.unwrap();
}

mod disabled {
    use culvert_client::{DisabledTransport, Transport};

    pub async fn main() -> anyhow::Result<()> {
        let mut transport = DisabledTransport::new();

        // This is a no-op in local-only mode
        let topic = [0u8; 32];
        transport.announce(topic).await?;

        // Returns empty peer list
        let peers = transport.lookup(topic).await?;
        assert!(peers.is_empty());

        Ok(())
    }
}

#[tokio::test]
async fn the_local_only_example_finds_nobody() {
    disabled::main().await.unwrap();
    let mut transport = culvert_client::DisabledTransport::new();
    let refused = culvert_client::Transport::connect(&mut transport, [0; 32]).await.unwrap_err();
    assert!(refused.to_string().contains("sync is disabled"));
}

/// "Custom Transport Implementation": the page leaves the bodies open; it is compiled and named.
#[expect(clippy::todo, reason = "the page leaves the bodies open")]
mod custom {
    use async_trait::async_trait;
    use culvert_client::{Connection, PeerInfo, TopicHash, Transport};
    use tokio::sync::mpsc;

    pub struct MyCustomTransport;

    #[async_trait]
    impl Transport for MyCustomTransport {
        async fn connect(
            &mut self,
            _topic: TopicHash,
        ) -> anyhow::Result<mpsc::Receiver<Box<dyn Connection>>> {
            // Your implementation
            todo!()
        }

        async fn announce(&mut self, _topic: TopicHash) -> anyhow::Result<()> {
            // Your implementation
            todo!()
        }

        async fn lookup(&self, _topic: TopicHash) -> anyhow::Result<Vec<PeerInfo>> {
            // Your implementation
            todo!()
        }

        async fn disconnect(&mut self) -> anyhow::Result<()> {
            // Your implementation
            todo!()
        }

        fn name(&self) -> &str {
            "my-custom-transport"
        }
    }
}

#[test]
fn the_custom_transport_is_a_transport() {
    let transport: Box<dyn culvert_client::Transport> = Box::new(custom::MyCustomTransport);
    assert_eq!(transport.name(), "my-custom-transport");
}

#[test]
fn the_topic_example_is_deterministic() {
    use culvert_client::derive_topic;

    let db_id = "my-database";
    let topic = derive_topic(db_id);
    // topic is now a 32-byte BLAKE2b-256 hash

    // Same database ID always produces same topic
    assert_eq!(derive_topic(db_id), derive_topic(db_id));

    assert_eq!(topic[..4], [0xdc, 0x36, 0x5a, 0x61]);
}

mod events {
    use culvert_client::{SyncBroadcaster, SyncEvent};

    pub async fn main() {
        let hub = SyncBroadcaster::default();
        let mut rx = hub.subscribe();

        // Publish events
        hub.publish(SyncEvent::PeerConnected { peer_id: "peer-123".to_string() }).unwrap();

        // Receive events
        while let Ok(event) = rx.recv().await {
            match event {
                SyncEvent::PeerConnected { peer_id } => {
                    println!("Peer connected: {}", peer_id);
                }
                SyncEvent::PeerDisconnected { peer_id } => {
                    println!("Peer disconnected: {}", peer_id);
                }
                _ => {}
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_event_example_receives_what_it_published_and_waits_for_more() {
    // The page's program waits for ever, since its own hub stays open.
    assert!(timeout(Duration::from_secs(1), events::main()).await.is_err());
}

#[test]
fn the_configuration_examples_are_what_their_comments_say() {
    use culvert_client::{TransportConfig, TransportMode};

    // Hyperswarm
    let config = TransportConfig {
        mode: TransportMode::Hyperswarm,
        relay_url: None,
        timeout_ms: 30000,
        encryption: true,
    };
    assert!(config.validate().unwrap_err().to_string().contains("not available yet"));

    // Relay with custom server
    let config = TransportConfig {
        mode: TransportMode::Relay,
        relay_url: Some("wss://my-relay.example.com".to_string()),
        timeout_ms: 30000,
        encryption: true,
    };
    assert_eq!(config.validate(), Ok(()));

    // Disabled (local-only)
    let config = TransportConfig { mode: TransportMode::Disabled, ..Default::default() };
    assert_eq!(config.validate(), Ok(()));
}
