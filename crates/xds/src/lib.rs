//! Both ends of the discovery protocol: subscriptions, versions, ACK and NACK, delta and state of the world.
