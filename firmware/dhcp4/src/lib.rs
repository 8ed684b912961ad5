//! DHCPv4 client, server and lease journal as sans-IO state machines (RFC 2131).
