//! DNS forwarder, cache and local zones as sans-IO state machines (RFC 1035).
