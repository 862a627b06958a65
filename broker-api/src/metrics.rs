//! What operators see.

culvert_service_kit::metric_set! {
    /// Series of the broker.
    pub struct Metrics {
        /// WebSocket connections open now.
        pub connections: gauge "culvert_broker_connections",
    }
}
